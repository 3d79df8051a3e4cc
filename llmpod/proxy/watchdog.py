"""Not a supervisor: ends this process when its event loop hangs, so that whoever supervises it can start it anew.

A thread counts its own looks, not the clock: a process that was stopped or a machine that slept has missed none.
"""

import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from typing import Final

HUNG_SECONDS: Final = 10.0
LOOKS: Final = 20  # within that time
EXIT_HUNG: Final = 70  # EX_SOFTWARE of sysexits.h


class Watchdog:
    """Call ``beat`` from the event loop, more often than a twentieth of the limit.

    Args:
        seconds: without a beat, until all stacks are written to standard error and the process ends.
        end: what is done then; never returns.
    """

    def __init__(
        self, seconds: float = HUNG_SECONDS, *, end: Callable[[], object] = lambda: os._exit(EXIT_HUNG)
    ) -> None:
        self._pause = seconds / LOOKS
        self._end = end
        self._missed = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def beat(self) -> None:
        """The loop runs."""
        self._missed = 0

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._pause):
            self._missed += 1
            if self._missed > LOOKS:
                sys.stderr.write(f'{{"event": "hung", "seconds": {self._pause * LOOKS:g}}}\n')
                faulthandler.dump_traceback(sys.stderr.fileno(), all_threads=True)
                self._end()
                return
