"""Not the judge of anything: brings decisions to the disk in order and answers back, without stopping the event loop.

One thread writes, in batches: whatever was decided while a batch was under way makes the next one. Two threads
read, so that a slow write holds up nobody who waits for an answer.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from llmpod.cache.disk import Outcome, Remove, Step, Store, Touch, Write
from llmpod.cache.entry import Entry

WAITING_BYTES: Final = 32 * 2**20  # entries that wait for the writer; what comes on top is not written now
_BATCH: Final = 256
_T = TypeVar("_T")


class Carrier:
    """The asynchronous side of a ``Store``.

    Args:
        store: used in threads from now on.
        settled: told what became of each batch, on the event loop.
        clock: seconds since the epoch, for the order of use.

    Attributes:
        waiting: entries on their way to the disk, by key.
    """

    def __init__(self, store: Store, settled: Callable[[Outcome], None], clock: Callable[[], float]) -> None:
        self.waiting: dict[bytes, Entry] = {}
        self._waiting_bytes = 0
        self._store = store
        self._settled = settled
        self._clock = clock
        self._last_stamp = 0
        self._steps: list[Step] = []
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._writer = ThreadPoolExecutor(1, "cache-writer")
        self._readers = ThreadPoolExecutor(2, "cache-reader")

    # --- decisions -----------------------------------------------------------------------------------------------
    def write(self, entry: Entry) -> bool:
        """Queues an entry, in place of an older one of its key; False when too much is waiting already."""
        self.cancel(entry.key)
        if self._waiting_bytes + entry.size > WAITING_BYTES:
            return False
        self.waiting[entry.key] = entry
        self._waiting_bytes += entry.size
        self._queue(Write(entry, self._stamp()))
        return True

    def remove(self, key: bytes) -> None:
        """Queues the removal of a record."""
        self.cancel(key)
        self._queue(Remove(key))

    def touch(self, keys: Iterable[bytes]) -> None:
        """Notes uses, oldest first, to be written with the next batch."""
        self._steps += [Touch(key, self._stamp()) for key in keys]

    def _queue(self, step: Step) -> None:
        self._steps.append(step)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self.carry(), name="cache-carrier")

    def cancel(self, key: bytes) -> None:
        """Takes back an entry that waits, unless it is being written already."""
        if entry := self.waiting.pop(key, None):
            self._waiting_bytes -= entry.size

    def _stamp(self) -> int:
        self._last_stamp = max(self._last_stamp + 1, int(self._clock() * 1e9))
        return self._last_stamp

    # --- doing ---------------------------------------------------------------------------------------------------
    async def carry(self) -> None:
        """Does everything that is queued. With an empty queue, looks whether the directory is still ours."""
        async with self._lock:
            while True:
                batch, self._steps = self._steps[:_BATCH], self._steps[_BATCH:]
                wanted = [step for step in batch if self._is_wanted(step)]
                outcome = await self._in_writer(partial(self._store.apply, wanted))
                self._settle(wanted, outcome)
                if not self._steps:
                    return

    def _is_wanted(self, step: Step) -> bool:
        """False for a write that was overtaken by a newer one or by a removal."""
        return not isinstance(step, Write) or self.waiting.get(step.entry.key) is step.entry

    def _settle(self, batch: list[Step], outcome: Outcome) -> None:
        """Reports only what nobody has decided otherwise meanwhile."""
        if outcome.lost:
            outcome.failed = [step.entry for step in batch if isinstance(step, Write)]
        outcome.saved = [entry for entry in outcome.saved if self.waiting.get(entry.key) is entry]
        outcome.failed = [entry for entry in outcome.failed if self.waiting.get(entry.key) is entry]
        for entry in (*outcome.saved, *outcome.failed):
            self.cancel(entry.key)
        self._settled(outcome)

    async def read(self, key: bytes) -> Entry | None:
        """As ``Store.read``. Raises Corrupt."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._store.read, key)

    async def connect(self) -> bool:
        """As ``Store.open``. Raises Unusable."""
        return await self._in_writer(self._store.open)

    @property
    def replaced(self) -> bool:
        """Whether the last ``connect`` found another directory than the one before."""
        return self._store.replaced

    async def lost(self) -> bool:
        """As ``Store.lost``."""
        return await self._in_writer(self._store.lost)

    async def explore(self, *, max_entries: int, max_bytes: int) -> tuple[OrderedDict[bytes, int], int]:
        """Proves that the directory can be written, then as ``Store.scan``. Raises Unusable."""

        def explore() -> tuple[OrderedDict[bytes, int], int]:
            self._store.probe()
            return self._store.scan(max_entries=max_entries, max_bytes=max_bytes)

        return await self._in_writer(explore)

    async def close(self) -> None:
        """Ends the threads after what they are doing, and lets go of the directory."""
        self._store.stopping = True
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._writer.shutdown)
        await loop.run_in_executor(None, self._readers.shutdown)
        self._store.close()

    async def _in_writer(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, call)
