"""Not a limit of the system's: looks how much memory this process holds, to refuse work before the kernel kills it.

Above the cap what is stored on disk leaves memory, and new work is refused while other work is under way: one thing
after the other is always served, so a process that cannot give its memory back is slow and not useless (F49).
"""

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from llmpod.observe import Log

LOOK_SECONDS: Final = 1.0
ENOUGH: Final = 0.95  # of the cap: below that all is well again
_STATM: Final = Path("/proc/self/statm")  # proc(5): the second figure is resident pages


def resident() -> int | None:
    """Bytes of memory that this process holds; None where nobody says so."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def give_back() -> None:
    """Have the C library return what it keeps for later (malloc_trim(3)); elsewhere nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class MemoryWatch:
    """Call ``look`` often.

    Args:
        cap: bytes; 0: no cap.
        log: told when it begins and when it is over.
        relieve: makes free what can be made again.
        held: how many bytes there are.
        clock: monotonic seconds.

    Attributes:
        bytes: at the last look.
        full: above the cap.
    """

    def __init__(
        self,
        cap: int,
        log: Log,
        *,
        relieve: Callable[[], object],
        held: Callable[[], int | None] = resident,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cap = cap
        self.bytes = held() or 0
        self.full = False
        self._log = log
        self._relieve = relieve
        self._held = held
        self._clock = clock
        self._looked_at = clock()

    def look(self) -> bool:
        """Whether there is too much; looks once a second."""
        now = self._clock()
        if now - self._looked_at < LOOK_SECONDS:
            return self.full
        self._looked_at = now
        self.bytes = self._held() or 0
        full = bool(self.cap) and self.bytes > self.cap * (ENOUGH if self.full else 1.0)
        if full:
            self._relieve()
            give_back()
        if full != self.full:
            self.full = full
            event = self._log.warning if full else self._log.info
            event("memory_full" if full else "memory_well", bytes=self.bytes, cap=self.cap)
        return full
