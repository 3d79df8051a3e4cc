"""Not the machine's clock: the simulator's own, which runs with it and can be moved forward."""

import asyncio
import time
from datetime import UTC, datetime


class Clock:
    """Seconds since the epoch, plus what was added by `advance`. Never goes back."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._moved = asyncio.Event()

    def now(self) -> float:
        """Simulated Unix time in seconds."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Move forward; whoever sleeps until a moment that is now past wakes. Raises ValueError when negative."""
        if seconds < 0:
            raise ValueError("the clock does not go back")
        self._ahead += seconds
        self._moved.set()
        self._moved = asyncio.Event()

    async def sleep_until(self, moment: float) -> None:
        """Returns when `now()` has reached `moment`."""
        while (left := moment - self.now()) > 0:
            try:
                await asyncio.wait_for(self._moved.wait(), timeout=min(left, 3600))
            except TimeoutError:
                continue


def rfc3339(moment: float) -> str:
    """`2026-08-20T06:16:19.436Z`, as the API writes time."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
