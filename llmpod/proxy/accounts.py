"""Not a limit: what was used with each key today and this month, in memory and, a moment later, in a file.

One proxy counts in one file; a second one with the same keys needs a file of keys of its own.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from llmpod.config import CallerKey, ProxySettings
from llmpod.errors import StateError
from llmpod.lifecycle.tally import Tally, day_name, read_tally, tally_file, write_tally
from llmpod.observe import Log

SAVE_SECONDS: Final = 2.0  # what a crash may forget
DAY: Final = 24 * 3600


def tally_of(settings: ProxySettings) -> Path | None:
    """The file of what was used; None where there are no keys."""
    return tally_file(settings.keys_file) if settings.keys_file is not None else None


class Accounts:
    """The tallies of all keys that were used. One event loop owns them.

    Args:
        path: where they are kept; None: nowhere. One that cannot be read is begun anew, and the log says so.
        log: told of that, and when the file cannot be written; requests are served all the same.
        clock: seconds since the epoch.
    """

    def __init__(self, path: Path | None, log: Log, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._log = log
        self._clock = clock
        self._day, self._day_begins = "", float("-inf")
        self._tallies: dict[str, Tally] = {}
        self._changed = False
        self._complaint = ""
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._load()

    def of(self, key: CallerKey) -> Tally:
        """What was used with a key until now."""
        now = self._clock()
        if not 0 <= now - self._day_begins < DAY:
            self._day, self._day_begins = day_name(now), now // DAY * DAY
        tally = self._tallies.get(key.id)
        if tally is None:
            tally = self._tallies[key.id] = Tally()
        if tally.day != self._day:
            tally.turn(self._day)
        return tally

    def asked(self, tally: Tally) -> None:
        """One more request came with the key whose tally ``of`` has just given."""
        tally.asked()
        self._changed = True

    def unasked(self, tally: Tally) -> None:
        """The request that was counted last is not served after all."""
        tally.unasked()
        self._changed = True

    def answered(self, key: CallerKey, tokens: int, usd: float | None) -> None:
        """A model server has answered one; None: at a price that nobody knows."""
        self.of(key).answered(tokens, usd)
        self._changed = True

    def start(self) -> None:
        """Write what changes from now on."""
        if self._path is not None and self._task is None:
            self._task = asyncio.create_task(self._run())

    def adopt(self, path: Path | None) -> None:
        """Keep them in another file from now on; what it says of keys that were not used meanwhile counts."""
        if path != self._path:
            self._path = path
            self._load()
            self.start()

    async def aclose(self) -> None:
        """Write the rest and stop."""
        if self._task is not None:
            self._stopping.set()
            await self._task
            self._task = None
            await self._save()  # what came while the last one was written

    def _load(self) -> None:
        if self._path is None:
            return
        try:
            self._tallies = {**read_tally(self._path), **self._tallies}
        except StateError as e:
            self._log.warning("use_of_keys_unreadable", reason=str(e))

    async def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), SAVE_SECONDS)
            await self._save()

    async def _save(self) -> None:
        path = self._path
        if not self._changed or path is None:
            return
        self._changed = False
        month = day_name(self._clock())[:7]
        self._tallies = {name: tally for name, tally in self._tallies.items() if tally.month == month}
        try:
            await asyncio.to_thread(write_tally, path, dict(self._tallies))
        except (StateError, OSError) as e:
            self._changed = True
            if str(e) != self._complaint:
                self._complaint = str(e)
                self._log.warning("use_of_keys_unwritten", reason=str(e))
