"""Not the books and not the files: finds each record of the index a place in the segments.

Everything is decided on the event loop, in steps of about a millisecond; only the carrier touches files.
"""

import asyncio
from collections.abc import Callable
from copy import copy
from typing import Final

from llmpod.cache.carrier import Carrier
from llmpod.cache.cold import length_of, offset_of, short, slot_of
from llmpod.cache.disk import Store
from llmpod.cache.entry import Entry, encode, encode_uses
from llmpod.cache.index import Index
from llmpod.cache.replay import Replay
from llmpod.cache.snapshot import Books
from llmpod.cache.space import Segment, Space
from llmpod.cache.steps import Append, Erase, Snap, Spot, Unlink
from llmpod.cache.walk import USE

LARGE: Final = 16 * 1024  # bytes of answer and question from which a thread makes the record
_KEPT_BYTES: Final = 4 * 2**20
_MOST_USES: Final = 8192
_SNAPSHOT_BYTES: Final = 32 * 2**20  # segments may grow by this much until the books are written down again
_LARGEST_COUNT: Final = 2**32 - 1


class Shelf:
    """The records of an index on disk.

    Args:
        index: the books.
        store: the directory, for its MAC key only.
        carrier: the way to it.
        max_bytes: of all files in it together.
        clock: seconds since the epoch.

    Attributes:
        space: the segments.
        writable: records may be written now.
    """

    def __init__(
        self, index: Index, store: Store, carrier: Carrier, *, max_bytes: int, clock: Callable[[], float]
    ) -> None:
        self.space = Space(max_bytes)
        self.space.on_dead = self._unlink
        self.writable = False
        self._index = index
        self._store = store
        self._carrier = carrier
        self._clock = clock
        self._foreign: dict[int, Segment] | None = None  # another process's segments
        self._encoding: dict[asyncio.Task[None], Entry] = {}
        self._kept: dict[bytes, bytes] = {}
        self._kept_bytes = 0
        self._noted = 0  # bytes of segments when the books were last written down

    # --- taking over ---------------------------------------------------------------------------------------------
    def reset(self) -> None:
        """Nothing is known of the directory."""
        self._index.disconnect()
        self._foreign = None
        self.space.reset({})

    def own(self, replay: Replay) -> None:
        """What was found is ours from now on."""
        self._foreign = None
        self.space.reset(replay.segments, after=replay.number)
        self.space.extra = replay.snapshot_bytes
        self._noted = -replay.replayed
        self._index.on_gone = self._gone
        self._index.adopt(replay.places, self.space.live)
        for key in [key for key in self._kept if key not in self._index.volatile]:
            self._kept_request(key)
        for segment in [segment for segment in replay.segments.values() if segment.live <= 0]:
            self.space.retire(segment)

    def borrow(self, replay: Replay) -> None:
        """What was found is another process's: it is read, and forgotten without consequences."""
        self._foreign = replay.segments
        self._index.disconnect()
        self._index.adopt(replay.places, sum(segment.live for segment in replay.segments.values()))

    def spot(self, key: bytes, place: int | None) -> Spot | None:
        """A place in terms of files."""
        if place is None:
            return None
        segments = self.space.segments if self._foreign is None else self._foreign
        segment = segments.get(slot_of(place))
        return Spot(segment.number, offset_of(place), length_of(place), key) if segment is not None else None

    def erase(self, key: bytes, place: int | None) -> None:
        """Has the contents of a record overwritten, whoever wrote it."""
        spot = self.spot(key, place)
        if spot is not None:
            self._carrier.queue(Erase(spot))

    def _gone(self, place: int, *, erase: bytes | None) -> None:
        if erase is not None:
            self.erase(erase, place)
        self.space.release(place)

    def _unlink(self, segment: Segment) -> None:
        self._carrier.queue(Unlink(segment.number))

    # --- records -------------------------------------------------------------------------------------------------
    def save(self, entry: Entry, request: bytes) -> bool:
        """Has the record of an entry written; False when there is no room for it now.

        Args:
            entry: in memory, and volatile.
            request: what was asked; empty when that is not known.
        """
        if self._save(entry, request):
            return True
        self._keep_request(entry.key, request)
        return False

    def _save(self, entry: Entry, request: bytes) -> bool:
        under_way = self._carrier.waiting_bytes
        if self._encoding:
            under_way += sum(other.size for other in self._encoding.values())
        signer = self._store.signer
        if signer is None or not self.writable or under_way + entry.size > self._carrier.most_waiting:
            return False
        if entry.size > LARGE:
            task = asyncio.create_task(self._encode(entry, request), name="cache-encode")
            self._encoding[task] = entry
            task.add_done_callback(self._encoding.pop)
            return True
        return self._place(entry, encode(entry, request, signer))

    async def save_volatile(self) -> None:
        """Saves what has no record yet, as far as that can be done now."""
        if self.writable and self._index.volatile:
            under_way = {id(entry) for entry in self._encoding.values()}
            for entry in self._index.volatile_entries():
                if id(entry) not in under_way:
                    self.save(entry, self._kept_request(entry.key))
            await self._encoded()

    @property
    def waiting(self) -> int:
        """Entries on their way to the disk."""
        return len(self._carrier.waiting)

    def _keep_request(self, key: bytes, request: bytes) -> None:
        """Remembers what was asked for an entry that cannot be saved now: some, not all when it lasts."""
        if request and self._kept_bytes + len(request) <= _KEPT_BYTES:
            self._kept_bytes += len(request) - len(self._kept.get(key, b""))
            self._kept[key] = request

    def _kept_request(self, key: bytes) -> bytes:
        """Gives that back, and forgets it."""
        request = self._kept.pop(key, b"")
        self._kept_bytes -= len(request)
        return request

    async def _encode(self, entry: Entry, request: bytes) -> None:
        record = await self._carrier.encode(entry, request)
        wanted = entry.key in self._index.volatile and self._index.memory.look(entry.key) is entry
        if not wanted or (record is not None and self.writable and self._place(entry, record)):
            return
        self._keep_request(entry.key, request)

    def _place(self, entry: Entry, record: bytes) -> bool:
        place = self.space.take(len(record), entry.stored_at)
        if place is None:
            return False
        self._index.settle(entry, place)
        self.append(record).entry(entry, place)
        self._carrier.waits(entry, len(record))
        return True

    def append(self, record: bytes) -> Append:
        """Queues a record whose place was taken just now."""
        active = self.space.active
        if active is None:
            raise RuntimeError("a place was taken, so there is a segment")
        return self._carrier.append(active, record)

    async def _encoded(self) -> None:
        """Waits for the records that are being made in threads."""
        if self._encoding:
            await asyncio.wait(self._encoding)

    def note_uses(self) -> None:
        """Has the order of use written, as far as it changed."""
        if not self.writable:
            return
        now, rows = int(self._clock()) & _LARGEST_COUNT, []
        for key in self._index.memory.touched()[-_MOST_USES:]:
            entry = self._index.memory.look(key)
            hits = entry.tally[0] if entry is not None else 0
            if entry is not None:
                entry.tally[0] = 0
            if self._index.place(key) is not None:
                rows.append(USE.pack(short(key), now, min(hits, _LARGEST_COUNT)))
        signer = self._store.signer
        if not rows or signer is None:
            return
        record = encode_uses(b"".join(rows), self._clock(), signer)
        place = self.space.take(len(record), self._clock())
        if place is not None:
            self.append(record)
            self.space.release(place)

    # --- the books -----------------------------------------------------------------------------------------------
    @property
    def unnoted(self) -> bool:
        """So much was written since the books were that a start would take a while."""
        return self.space.written - self._noted > _SNAPSHOT_BYTES

    async def snapshot(self) -> None:
        """Has the books written down, if there is room for them."""
        space = self.space
        number, offset = space.end
        segments = [copy(segment) for segment in space.segments.values()]
        books = Books(number, offset, segments, *self._index.rows())
        self._noted = space.written
        if space.real + space.extra + books.file_bytes > space.limit:
            space.extra = 0
            await self._carrier.do(Snap(None))
            return
        space.extra += books.file_bytes
        await self._carrier.do(Snap(books))
        space.extra = books.file_bytes

    async def close(self) -> None:
        """Waits for what is being made; there is no disk any more."""
        self.writable = False
        self._index.disconnect()
        await self._encoded()
