"""Not the judge of anything: brings decisions to the disk in order and answers back, without stopping the event loop.

One thread writes, in batches: what is decided within 50 ms, or a megabyte of it, goes in one call of the system.
It does nothing else, because two threads that want the interpreter slow each other down: small records are made on
the event loop (some microseconds each, once) and only large ones in a thread, where compressing and hashing run
without the interpreter. Two threads read, so that a slow write holds up nobody who waits for an answer.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from llmpod.cache.cold import length_of
from llmpod.cache.disk import Store
from llmpod.cache.entry import Entry
from llmpod.cache.notices import Notice
from llmpod.cache.replay import Replay
from llmpod.cache.space import Segment
from llmpod.cache.steps import Append, Outcome, Spot, Step
from llmpod.cache.walk import Frame

BATCH_BYTES: Final = 2**20
BATCH_SECONDS: Final = 0.05
_T = TypeVar("_T")


class Carrier:
    """The asynchronous side of a ``Store``.

    Args:
        store: used in threads from now on.
        settled: told what became of each batch, on the event loop.

    Attributes:
        waiting: entries on their way to the disk, by key.
        waiting_bytes: of their records.
        most_waiting: what comes on top is not to be queued now.
    """

    most_waiting: Final = 32 * 2**20

    def __init__(self, store: Store, settled: Callable[[Outcome], None]) -> None:
        self.waiting: dict[bytes, Entry] = {}
        self.waiting_bytes = 0
        self._store = store
        self._settled = settled
        self._steps: list[Step] = []
        self._growing: Append | None = None  # the last step, while it can take more
        self._bytes = 0
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writer = ThreadPoolExecutor(1, "cache-writer")
        self._readers = ThreadPoolExecutor(2, "cache-reader")

    # --- decisions -----------------------------------------------------------------------------------------------
    def append(self, segment: Segment, record: bytes) -> Append:
        """Queues a record that was given the last place in a segment; the step that will write it."""
        step = self._growing
        if step is None or step.number != segment.number:
            step = self._growing = Append(segment.number, segment.size - len(record))
            self._steps.append(step)
        step.parts.append(record)
        step.bytes += len(record)
        self._bytes += len(record)
        if self._bytes >= BATCH_BYTES and (self._task is None or self._task.done()):
            self._begin()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_SECONDS, self._begin)
        return step

    def waits(self, entry: Entry, length: int) -> None:
        """An entry cannot be read until its record, just queued, has been written."""
        self.waiting[entry.key] = entry
        self.waiting_bytes += length

    def queue(self, step: Step) -> None:
        """Queues anything else."""
        self._growing = None
        self._steps.append(step)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_SECONDS, self._begin)

    def _begin(self) -> None:
        self._cancel_timer()
        self._task = asyncio.create_task(self.carry(), name="cache-carrier")

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- doing ---------------------------------------------------------------------------------------------------
    async def carry(self) -> None:
        """Does everything that is queued now. With an empty queue, looks whether the directory is still ours."""
        async with self._lock:
            self._cancel_timer()
            batch, self._steps, self._growing, self._bytes = self._steps, [], None, 0
            outcome = await self._in_writer(partial(self._store.apply, batch))
            self._settle(batch, outcome)

    def _settle(self, batch: list[Step], outcome: Outcome) -> None:
        for step in batch:
            if isinstance(step, Append):
                self._landed(step)
                if outcome.lost:
                    outcome.failed += step.placed
        self._settled(outcome)

    def _landed(self, step: Append) -> None:
        for entry, place in step.placed:
            self.waiting_bytes -= length_of(place)
            if self.waiting.get(entry.key) is entry:
                del self.waiting[entry.key]

    async def do(self, step: Step) -> None:
        """Has something else done, after all that is queued."""
        self.queue(step)
        await self.carry()

    # --- in threads ----------------------------------------------------------------------------------------------
    async def encode(self, entry: Entry, request: bytes) -> bytes | None:
        """The record of a large entry, its request compressed; None while the directory is not open."""
        return await self._in_reader(partial(self._store.encode, entry, request))

    async def read(self, spot: Spot) -> Entry | None:
        """As ``Store.read``. Raises Corrupt."""
        return await self._in_reader(partial(self._store.read, spot))

    async def records(
        self, number: int, start: int, budget: int
    ) -> tuple[list[tuple[Frame, bytes]], int | None]:
        """As ``Store.records``."""
        return await self._in_reader(partial(self._store.records, number, start, budget))

    async def connect(self) -> bool:
        """As ``Store.open``. Raises Unusable."""
        return await self._in_writer(self._store.open)

    @property
    def replaced(self) -> bool:
        """Whether the last ``connect`` found another directory than the one before."""
        return self._store.replaced

    async def lost(self) -> bool:
        """As ``Store.lost``. Raises Unusable."""
        return await self._in_writer(self._store.lost)

    async def probe(self) -> None:
        """As ``Store.probe``. Raises Unusable."""
        await self._in_writer(self._store.probe)

    async def scan(self) -> Replay:
        """As ``Store.scan``. Raises Unusable."""
        return await self._in_writer(self._store.scan)

    async def follow(self, replay: Replay) -> None:
        """As ``Replay.follow``. Raises OSError."""
        await self._in_writer(replay.follow)

    async def notices(self) -> list[Notice]:
        """As ``Store.notices``."""
        return await self._in_reader(self._store.notices)

    async def acknowledge(self, notice: Notice, known: int) -> None:
        """As ``Store.acknowledge``, after all that is queued."""
        await self.carry()
        await self._in_writer(partial(self._store.acknowledge, notice, known))

    async def close(self) -> None:
        """Ends the threads after what they are doing, and lets go of the directory."""
        self._cancel_timer()
        self._store.stop()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._writer.shutdown)
        await loop.run_in_executor(None, self._readers.shutdown)
        self._store.close()

    async def _in_writer(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, call)

    async def _in_reader(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, call)
