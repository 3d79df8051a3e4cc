"""Not the index that is used: makes the books of a directory from its files, in a thread, and keeps up with them.

What is in the segments happened in the order of their numbers and of their bytes; so the books are a snapshot, if
there is one that can be believed, and what was written after it. Nothing is served because it is found here: each
record is checked when it is read.
"""

import os
from collections.abc import Iterator
from contextlib import suppress

from llmpod.cache import files, snapshot
from llmpod.cache.cold import MAX_OFFSET, MAX_SLOTS, length_of, offset_of, place_of, short, slot_of
from llmpod.cache.entry import COVERED, DEAD, ENTRY, FRONT, HEAD_BYTES, LIVE, MAC_BYTES, Corrupt, Signer
from llmpod.cache.root import Root
from llmpod.cache.space import Segment
from llmpod.cache.walk import USE, Frame, Walk


class Replay:
    """The books of an open directory, as far as they were read.

    Args:
        root: the directory; kept open as long as we live.

    Attributes:
        places: by the first 60 bits of the key, oldest use first.
        segments: by slot; also those that hold nothing.
        number, offset: the segment and the byte up to which everything is in the books.
        snapshot_bytes: of the snapshot that was believed.
        replayed: bytes of segments read for it.
        damaged: bytes in them that belong to no record.
        news: (key, place) of entries found since this was last set empty; None: they are not kept.
    """

    def __init__(self, root: Root) -> None:
        self.places: dict[int, int] = {}
        self.segments: dict[int, Segment] = {}
        self.number = self.offset = 0
        self.replayed = self.damaged = 0
        self.snapshot_bytes = 0
        self.news: list[tuple[bytes, int]] | None = None
        self.stopping = False
        self._root = root
        self._signer = root.signer
        self._slots: dict[int, int] = {}  # by number

    def run(self) -> None:
        """Reads all there is. Raises OSError."""
        sizes = files.segments(self._root.fd)
        with suppress(OSError, Corrupt):  # the segments hold the same
            self._load(snapshot.read(self._root.fd, self._signer), sizes)
        self.follow(sizes)

    def follow(self, sizes: dict[int, int] | None = None) -> None:
        """Reads what has been written since. Raises OSError."""
        sizes = files.segments(self._root.fd) if sizes is None else sizes
        for number, size in sizes.items():
            segment = self._segment(number, size)
            start = self.offset if number == self.number else 0
            if segment is not None and number >= self.number and size > start and not self.stopping:
                self._read(segment, start, size)

    # --- from the snapshot -----------------------------------------------------------------------------------
    def _load(self, books: snapshot.Books, sizes: dict[int, int]) -> None:
        self.snapshot_bytes = books.file_bytes
        known = {segment.slot: segment for segment in books.segments if segment.number in sizes}
        whole = all(sizes.get(segment.number, -1) >= segment.size for segment in books.segments)
        for segment in known.values():
            segment.size = sizes[segment.number]
        self.segments = known
        self._slots = {segment.number: slot for slot, segment in known.items()}
        self.number, self.offset = books.number, books.offset
        self.places = snapshot.load(books, None if whole else self._is_there, lambda: self.stopping)
        if not whole:
            self._count()

    def _is_there(self, place: int) -> bool:
        segment = self.segments.get(slot_of(place))
        return segment is not None and offset_of(place) + length_of(place) <= segment.size

    def _count(self) -> None:
        for segment in self.segments.values():
            segment.live = 0
        for place in self.places.values():
            self.segments[slot_of(place)].live += length_of(place)

    # --- from the segments -----------------------------------------------------------------------------------
    def _segment(self, number: int, size: int) -> Segment | None:
        slot = self._slots.get(number)
        if slot is None:
            slot = max(self.segments, default=-1) + 1
            if slot >= MAX_SLOTS:
                return None
            self._slots[number] = slot
            self.segments[slot] = Segment(number, slot)
            self.segments[slot].size = size
        return self.segments[slot]

    def _read(self, segment: Segment, start: int, size: int) -> None:
        try:
            with files.reading(files.segment_name(segment.number), self._root.fd) as fd:
                walk = Walk(fd, start, size)
                for frame in walk:
                    self._take(segment, frame, fd)
                    if self.stopping:
                        return
        except FileNotFoundError:
            return  # tidied away meanwhile
        segment.size = size
        self.replayed += size - start
        self.damaged += walk.damaged
        self.number, self.offset = segment.number, walk.position

    def _take(self, segment: Segment, frame: Frame, fd: int) -> None:
        segment.newest = max(segment.newest, frame.stored_at)
        if frame.kind != ENTRY:
            self._take_uses(frame, fd)
        elif frame.state != DEAD and frame.offset < MAX_OFFSET:
            place = place_of(segment.slot, frame.offset, frame.length)
            digits = short(frame.key)
            older = self.places.get(digits)
            if older is not None:
                self._release(older)
                if frame.state == LIVE:
                    del self.places[digits]
            self.places[digits] = place  # a copy that tidying made keeps its place in the order
            segment.live += frame.length
            if self.news is not None:
                self.news.append((frame.key, place))

    def _release(self, place: int) -> None:
        segment = self.segments.get(slot_of(place))
        if segment is not None:
            segment.live -= length_of(place)

    def _take_uses(self, frame: Frame, fd: int) -> None:
        for digits, _, _ in uses(frame, fd, self._signer):
            place = self.places.pop(digits, None)
            if place is not None:
                self.places[digits] = place


def uses(frame: Frame, fd: int, signer: Signer) -> Iterator[tuple[int, int, int]]:
    """(first 60 bits of the key, seconds since the epoch, hits) of each row, if it is as it was written."""
    record = os.pread(fd, frame.length, frame.offset)
    _, _, length, *_ = COVERED.unpack_from(record, FRONT.size)
    end = HEAD_BYTES + length
    if end + MAC_BYTES <= len(record) and signer.check(record, FRONT.size, end) and not length % USE.size:
        yield from USE.iter_unpack(record[HEAD_BYTES:end])
