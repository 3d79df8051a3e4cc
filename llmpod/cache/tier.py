"""Not the front of the cache: its disk half, with everything that can go wrong with a directory.

What it is good for at the moment is one of the states of ``Disk``. Anything that fails leads to BROKEN; from there
the one way back is to open the directory again and look through it, at intervals that grow to 30 s.

| state | get | put | leaves by |
|---|---|---|---|
| BROKEN | what is known to be on disk | memory only | the next attempt: SCANNING, SHARED or BROKEN |
| SHARED | asks the disk | memory only | an attempt at every tick: SCANNING when the writer has gone |
| SCANNING | asks the disk | memory, written after the scan | READY or BROKEN |
| READY | what is known to be on disk | memory and disk | a failed write or a lost directory: BROKEN |
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Final

from llmpod.cache.carrier import Carrier
from llmpod.cache.disk import Outcome, Store, Unusable
from llmpod.cache.entry import Corrupt, Entry
from llmpod.cache.index import Index

_LONGEST_WAIT: Final = 30.0  # seconds between attempts on a directory that does not work
_CLOSE_SECONDS: Final = 5.0


class Disk(Enum):
    """What the directory is good for at the moment."""

    OFF = "off"  # there is none, by choice
    BROKEN = "broken"  # not usable, or not for writing; tried again later
    SHARED = "shared"  # another process writes; read only
    SCANNING = "scanning"  # ours; what is in it is not known yet
    READY = "ready"


class DiskTier:
    """Keeps an index and a directory in step. Call ``start`` first and ``close`` last.

    Args:
        index: the books; entries without a record are its ``volatile`` ones.
        store: the directory.
        clock: seconds since the epoch, for the order of use.
        tick_seconds: how often the order of use is written and the directory looked after.

    Attributes:
        state: see ``Disk``.
        degraded: why entries are not being written; None when they are.
        errors: batches that failed.
        corrupt: records found damaged.
    """

    def __init__(
        self, index: Index, store: Store, *, clock: Callable[[], float], tick_seconds: float
    ) -> None:
        self.state = Disk.BROKEN
        self.degraded: str | None = None
        self.errors = 0
        self.corrupt = 0
        self._index = index
        self._carrier = Carrier(store, self._settle, clock)
        self._tick = tick_seconds
        self._wait = tick_seconds
        self._retry_at = 0.0
        self._reads = False  # what is in memory was another process's directory
        self._gone: set[bytes] = set()  # removed while a scan was looking
        self._wake = asyncio.Event()
        self._explored = asyncio.Event()  # set unless a scan is running or about to run
        self._explored.set()
        self._keeper: asyncio.Task[None] | None = None
        index.on_remove = self.remove

    async def start(self) -> None:
        """Opens the directory, and begins to look after it in the background."""
        await self._connect()
        self._keeper = asyncio.create_task(self._keep(), name="cache-keeper")

    @property
    def waiting(self) -> int:
        """Entries on their way to the disk."""
        return len(self._carrier.waiting)

    def on_its_way(self, key: bytes) -> Entry | None:
        """An entry that is being written; its record cannot be read yet."""
        return self._carrier.waiting.get(key)

    # --- entries -------------------------------------------------------------------------------------------------
    def save(self, entry: Entry) -> None:
        """Has an entry written that is in memory; where that cannot be done now it stays volatile."""
        if self.state is not Disk.READY:
            self._carrier.cancel(entry.key)  # a newer answer than one that may be waiting
        elif self._carrier.write(entry):
            self._index.volatile.discard(entry.key)

    def remove(self, key: bytes) -> None:
        """Has a record removed."""
        self._carrier.remove(key)
        if self.state is Disk.SCANNING:
            self._gone.add(key)

    async def removed(self, key: bytes) -> None:
        """As ``remove``; the record is gone on return."""
        self.remove(key)
        await self._carrier.carry()

    async def load(self, key: bytes) -> Entry | None:
        """Fetches an entry into memory, if there is a record. A damaged one is removed."""
        if not self._may_hold(key):
            return None
        damaged = False
        try:
            entry = await self._carrier.read(key)
        except Corrupt:
            entry, damaged = None, True
        newer = self._index.memory.get(key) or self.on_its_way(key)
        if newer is not None:  # stored, or loaded by somebody else, while we were reading
            return newer
        if entry is None:
            self._index.forget(key)
            self.corrupt += damaged
            if damaged and self.state is not Disk.SHARED:
                self.remove(key)
        elif self._may_hold(key) and self._index.fits(entry):
            self._index.add(entry, volatile=self.state is Disk.SHARED)
        return entry

    def _may_hold(self, key: bytes) -> bool:
        if self.state in {Disk.SCANNING, Disk.SHARED}:
            return key not in self._gone
        return key in self._index.cold

    # --- in step -------------------------------------------------------------------------------------------------
    async def flush(self) -> None:
        """Waits until everything that can be on disk is there, the order of use included."""
        while True:
            await self._explored.wait()
            self._save_all()
            self._note_uses()
            under_way = self.waiting
            await self._carrier.carry()
            more = under_way and self._index.volatile and self.state is Disk.READY
            if self._explored.is_set() and not more:
                return

    async def close(self) -> None:
        """Flushes and lets go of the directory. What a slow disk does not take in 5 s is not stored."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.flush()
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        await self._carrier.close()

    def _save_all(self) -> None:
        """Queues what has no record yet."""
        if self.state is Disk.READY and self._index.volatile:
            for entry in self._index.volatile_entries():
                self.save(entry)

    def _note_uses(self) -> None:
        if self.state is Disk.READY:
            uses = self._index.memory.touched()
            self._carrier.touch(key for key in uses if key not in self._index.volatile)

    def _settle(self, outcome: Outcome) -> None:
        """Books what became of a batch."""
        for entry in outcome.failed:
            if self._index.memory.look(entry.key) is entry:
                self._index.volatile.add(entry.key)
            else:
                self._index.forget(entry.key)
        if outcome.error:
            self.errors += 1
            self._break(outcome.error)
        elif outcome.lost and self.state is Disk.READY:
            self._index.forget_records()
            self._break("the cache directory was removed")
            self._retry_at = 0.0
            self._explored.clear()
        elif outcome.saved:
            self._wait = self._tick

    # --- looking after the directory -----------------------------------------------------------------------------
    def _break(self, reason: str) -> None:
        self.state, self.degraded = Disk.BROKEN, reason
        self._retry_at = asyncio.get_running_loop().time() + self._wait
        self._wait = min(self._wait * 2, _LONGEST_WAIT)
        self._wake.set()

    async def _connect(self) -> None:
        """Opens the directory; where it is ours, a scan must follow."""
        self._reads |= self.state is Disk.SHARED
        try:
            ours = await self._carrier.connect()
        except Unusable as error:
            self._break(str(error))
            self._explored.set()
            return
        self._gone.clear()
        if self._reads and self._carrier.replaced:  # removed and made again between two looks of ours
            self._index.clear()
        self._reads = False
        if ours:
            self._explored.clear()
            self._index.clear_cold()
            self.state, self.degraded = Disk.SCANNING, None
        else:
            self.state = Disk.SHARED
            self.degraded = "another process writes this cache directory; here it is only read"
            self._explored.set()

    async def _explore(self) -> None:
        try:
            found, size = await self._carrier.explore(
                max_entries=self._index.max_entries, max_bytes=self._index.max_bytes
            )
        except Unusable as error:
            self._break(str(error))
        else:
            for key in self._gone:
                size -= found.pop(key, 0)
            self._index.adopt(found, size)
            self.state = Disk.READY
            self._save_all()
        finally:
            self._explored.set()

    async def _keep(self) -> None:
        while True:
            await self._look_after()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._tick):
                    await self._wake.wait()
            self._wake.clear()

    async def _look_after(self) -> None:
        """One round: note uses, notice a lost directory, try a broken one again."""
        if self.state is Disk.READY:
            self._save_all()
            self._note_uses()
            await self._carrier.carry()
        elif self.state is Disk.SHARED and await self._carrier.lost():
            self._index.clear()
        due = self.state is Disk.BROKEN and asyncio.get_running_loop().time() >= self._retry_at
        if due or self.state is Disk.SHARED:
            await self._carrier.carry()  # a record written after the scan would not be in the books
            await self._connect()
        if self.state is Disk.SCANNING:
            await self._explore()
