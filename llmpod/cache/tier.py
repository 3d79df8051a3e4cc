"""Not the front of the cache: its disk half, with everything that can go wrong with a directory.

Anything that fails leads to the state BROKEN; see ``Disk``.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from llmpod.cache.carrier import Carrier
from llmpod.cache.disk import Store
from llmpod.cache.entry import Corrupt, Entry
from llmpod.cache.follow import Follower
from llmpod.cache.index import Index
from llmpod.cache.root import Unusable
from llmpod.cache.shelf import Shelf
from llmpod.cache.state import Disk
from llmpod.cache.steps import Outcome
from llmpod.cache.tidy import Tidier

_LONGEST_WAIT: Final = 30.0  # seconds between attempts on a directory that does not work
_CLOSE_SECONDS: Final = 5.0
_PATIENCE: Final = 1.0  # seconds that a question waits for a scan: less than its answer would take


class DiskTier:
    """Keeps an index and a directory in step. Call ``start`` first and ``close`` last.

    Args:
        index: the books; entries without a record are its ``volatile`` ones.
        store: the directory.
        max_bytes, clock, ttl_seconds, tick_seconds: as for ``Cache.open``.

    Attributes:
        shelf: the places of records.
        tidier: keeps their files small, and removes what has expired.
        state: see ``Disk``.
        degraded: why entries are not being written; None when they are.
        errors: batches that failed.
        corrupt: records found damaged.
    """

    def __init__(
        self,
        index: Index,
        store: Store,
        *,
        max_bytes: int,
        clock: Callable[[], float],
        ttl_seconds: float | None,
        tick_seconds: float,
    ) -> None:
        self.state = Disk.BROKEN
        self.degraded: str | None = None
        self.errors = 0
        self.corrupt = 0
        self._index = index
        self._carrier = Carrier(store, self._settle)
        self.shelf = Shelf(index, store, self._carrier, max_bytes=max_bytes, clock=clock)
        self.tidier = Tidier(index, self.shelf, self._carrier, clock=clock, ttl_seconds=ttl_seconds)
        self._follower = Follower(index, self.shelf, self._carrier)
        self._tick = tick_seconds
        self._wait = tick_seconds
        self._retry_at = 0.0
        self._known = False  # what is in the books is what is in the directory
        self._mirrors = False  # memory may hold what came from the directory
        self._gone: set[bytes] = set()  # dropped while a scan was looking
        self._wake = asyncio.Event()
        self._explored = asyncio.Event()  # set unless a scan is running or about to run
        self._explored.set()
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Opens the directory, and begins to look after it in the background."""
        await self._connect()
        self._keeper = asyncio.create_task(self._keep(), name="cache-keeper")

    def on_its_way(self, key: bytes) -> Entry | None:
        """An entry that is being written; its record cannot be read yet."""
        return self._carrier.waiting.get(key) if key in self._index.cold else None

    # --- entries -------------------------------------------------------------------------------------------------
    def save(self, entry: Entry, request: bytes) -> None:
        """Has an entry written that is in memory; where that cannot be done now it stays volatile."""
        if not self.shelf.save(entry, request) and self.state is Disk.READY:
            self._wake.set()  # somebody must make room

    async def drop(self, key: bytes) -> bool:
        """Removes an entry; its record is gone on return. False when none was known."""
        if self.state is Disk.SHARED:
            await self._follow()
            self.shelf.erase(key, self._index.place(key))
        known = self._index.forget(key, erase=True)
        if self.state is Disk.SCANNING:
            self._gone.add(key)
            await self._explored.wait()
        await self._carrier.carry()
        return known

    async def load(self, key: bytes) -> Entry | None:
        """Fetches an entry into memory, if there is a record. A damaged one is removed."""
        await self._look_for(key)
        for _ in range(3):  # while it is read it may move
            place = self._index.cold.get(key)
            spot = self.shelf.spot(key, place)
            damaged = False
            try:
                entry = await self._carrier.read(spot) if spot is not None else None
            except Corrupt:
                entry, damaged = None, True
            newer = self._index.memory.look(key)
            if newer is not None:  # stored, or loaded by somebody else, while we were reading
                return self._index.memory.get(key)
            if entry is not None:
                return self._fresh(entry)
            if self._index.cold.get(key) == place:
                self.corrupt += damaged
                self._index.forget(key, erase=damaged and self.state is Disk.READY)
                return None
        return None

    def _fresh(self, entry: Entry) -> Entry | None:
        self.tidier.expire()
        if entry.stored_at < self._index.memory.horizon:
            self._index.forget(entry.key, erase=True)
            return None
        entry.take_request()
        self._index.warm(entry)
        return entry

    async def _look_for(self, key: bytes) -> None:
        if self.state is Disk.SCANNING:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._explored.wait()
        if self.state is Disk.SHARED and key not in self._index.cold:
            await self._follow()

    # --- in step -------------------------------------------------------------------------------------------------
    async def flush(self) -> None:
        """Waits until everything that can be on disk is there, the order of use included."""
        while True:
            await self._explored.wait()
            await self.shelf.save_volatile()
            under_way = self.shelf.waiting
            self.shelf.note_uses()
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
        if self.state is Disk.READY:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self.shelf.snapshot()
        await self.shelf.close()
        await self._carrier.close()

    def _settle(self, outcome: Outcome) -> None:
        """Books what became of a batch."""
        for entry, place in outcome.failed:
            self._index.unsettle(entry, place)
        if outcome.error:
            self.errors += 1
            self.shelf.space.seal()
            if self.state is Disk.READY:
                self._break(outcome.error)
        elif outcome.lost and self.state is Disk.READY:
            self._forget()
            self._break("the cache directory was removed")
            self._retry_at = 0.0
            self._explored.clear()
        elif outcome.wrote:
            self._wait = self._tick

    def _forget(self, *, keep_memory: bool = False) -> None:
        """What we know of the directory is not so any more."""
        self._known = self.shelf.writable = False
        self._mirrors = self._mirrors and keep_memory
        self._follower.end()
        self.shelf.reset()
        self._index.forget_records(keep_memory=keep_memory)

    # --- looking after the directory -----------------------------------------------------------------------------
    def _break(self, reason: str) -> None:
        self.state, self.degraded = Disk.BROKEN, reason
        self.shelf.writable = False
        self._retry_at = asyncio.get_running_loop().time() + self._wait
        self._wait = min(self._wait * 2, _LONGEST_WAIT)
        self._wake.set()

    async def _connect(self) -> None:
        """Opens the directory; where it is ours, a scan must follow."""
        was_shared = self.state is Disk.SHARED
        try:
            ours = await self._carrier.connect()
        except Unusable as error:
            self._forget(keep_memory=True)
            self._break(str(error))
            self._explored.set()
            return
        self._gone.clear()
        if self._mirrors and self._carrier.replaced:  # who removes the directory means all that came from it
            self._index.clear()
            self._mirrors = False
        if ours:
            self._forget(keep_memory=True)
            self._explored.clear()
            self.state, self.degraded = Disk.SCANNING, None
        elif not was_shared or self._carrier.replaced:
            await self._borrow()
        else:
            await self._follow()

    async def _borrow(self) -> None:
        """Reads what another process has written."""
        self._forget(keep_memory=True)
        try:
            await self._follower.begin()
        except Unusable as error:
            self._break(str(error))
        else:
            self.state, self._mirrors = Disk.SHARED, True
            self.degraded = "another process writes this cache directory; here it is only read"
        self._explored.set()

    async def _follow(self) -> None:
        try:
            await self._follower.catch_up()
        except Unusable as error:
            self._break(str(error))

    async def _explore(self) -> None:
        try:
            await self._carrier.probe()
            replay = await self._carrier.scan()
        except Unusable as error:
            self._break(str(error))
        else:
            self.shelf.own(replay)
            for key in self._gone:
                self._index.forget(key, erase=True)
            self._ready()
        finally:
            self._explored.set()

    def _ready(self) -> None:
        self.state, self.degraded = Disk.READY, None
        self._known = self._mirrors = self.shelf.writable = True

    async def _try_again(self) -> None:
        """After a failed write: all we know is still true if the directory is still the same."""
        try:
            if not self._known or await self._carrier.lost():
                if self._known:
                    self._forget()
                await self._connect()
                return
            await self._carrier.probe()
        except Unusable as error:
            self._break(str(error))
        else:
            self._ready()

    async def _keep(self) -> None:
        while True:
            await self._look_after()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._tick):
                    await self._wake.wait()
            self._wake.clear()

    async def _look_after(self) -> None:
        """One round: save and note, notice a lost directory, try a broken one again."""
        now = asyncio.get_running_loop().time()
        self.tidier.expire()
        if self.state is Disk.SHARED:
            await self._carrier.carry()
            await self._connect()
        elif self.state is Disk.BROKEN and now >= self._retry_at:
            await self._carrier.carry()
            await self._try_again()
        if self.state is Disk.SCANNING:
            await self._explore()
        if self.state is Disk.READY:
            await self.shelf.save_volatile()
            await self._carrier.carry()
            await self.tidier.look_after()
