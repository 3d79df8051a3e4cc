"""Not a way to fail gracefully: lets a test end the whole program by SIGKILL at its n-th effect, as a crash would.

Every effect of a pass calls ``point(name)`` (see :class:`llmpod.lifecycle.act.Actor`). With ``LLMPOD_FAILPOINT=n`` in
the environment the n-th of these calls is the last thing that the process does; without it nothing happens.
"""

import os
import signal
from collections.abc import Callable, Mapping

from llmpod.errors import ConfigError

VARIABLE = "LLMPOD_FAILPOINT"


def point(environ: Mapping[str, str]) -> Callable[[str], None]:
    """What a pass calls at each of its effects, with the effect's name.

    Raises:
        ConfigError: the variable holds no whole number of at least 1.
    """
    text = environ.get(VARIABLE, "")
    if not text:
        return lambda _: None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{VARIABLE} is {text!r}; it must be a whole number of at least 1, or absent.")
    return _Fuse(int(text))


class _Fuse:
    """Burns down by one at each call."""

    def __init__(self, length: int) -> None:
        self._left = length

    def __call__(self, name: str) -> None:
        self._left -= 1
        if self._left == 0:
            os.write(2, f"{VARIABLE}: killed at {name!r}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
