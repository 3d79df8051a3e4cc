"""Not a way to fail gracefully: lets a test end the whole program by SIGKILL at its n-th effect, as a crash would.

Every effect of a pass calls ``point(name)`` (see :class:`llmpod.lifecycle.act.Actor`). With ``LLMPOD_FAILPOINT=n`` in
the environment each call is named on stderr and the n-th is the last thing that the process does; 0 only names them.
Without the variable nothing happens.
"""

import os
import signal
from collections.abc import Callable, Mapping

from llmpod.errors import ConfigError

VARIABLE = "LLMPOD_FAILPOINT"


def point(environ: Mapping[str, str]) -> Callable[[str], None]:
    """What a pass calls at each of its effects, with the effect's name.

    Raises:
        ConfigError: the variable holds no whole number.
    """
    text = environ.get(VARIABLE, "")
    if not text:
        return lambda _: None
    if not text.isdecimal():
        raise ConfigError(f"{VARIABLE} is {text!r}; it must be a whole number, or absent.")
    return _Fuse(int(text))


class _Fuse:
    """Burns down by one at each call."""

    def __init__(self, length: int) -> None:
        self._left = length

    def __call__(self, name: str) -> None:
        os.write(2, f"{VARIABLE}: {name}\n".encode())
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
