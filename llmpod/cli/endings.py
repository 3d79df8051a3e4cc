"""Not the cleaning up: how the wish to stop arrives, and how to speak when the terminal may be gone."""

import signal
from contextlib import suppress
from types import FrameType

from rich.console import Console


class Stop(BaseException):
    """The wish to stop in order. Not an error, hence no Exception."""


class Endings:
    """Ctrl-C, SIGTERM and a closed terminal, as one :class:`Stop`; what follows is not heard until armed again.

    So a second Ctrl-C can never fall between the first one and the order that ends the pod.
    """

    def __init__(self) -> None:
        self._armed = True
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._heard)

    def arm(self) -> None:
        self._armed = True

    def disarm(self) -> None:
        self._armed = False

    def _heard(self, _signal: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise Stop


class Teller:
    """Prints while somebody reads; a pipe whose reader has gone is no reason to stop cleaning up."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, text: str) -> None:
        with suppress(OSError, SystemExit):  # rich turns a broken pipe into SystemExit
            self._console.print(text, highlight=False, markup=False)
