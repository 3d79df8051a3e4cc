"""Not aware of files: where in the segments each record goes, how much of them is wanted, and what is tidied next.

A segment is a file that only grows at its end. What is deleted in the books stays in its file until the whole file
goes: at once when nothing in it is wanted any more, or after tidying has copied what is still wanted elsewhere. So
that the files never take more than the limit, every byte is booked before it is written:

- up to 13/16 of the limit are entries (``capacity``); the rest is what waits to be tidied;
- a put may fill the files up to the limit less one segment; what does not fit waits in memory;
- tidying may use that last segment, for what it copies: at most what it then removes with the old file.

Only what was left by a process with a larger limit may be more, in the first moments: it is tidied like the rest.
A segment is 1/32 of the limit, 64 MiB at most; a record larger than that gets a segment of its own.
"""

from collections.abc import Callable
from typing import Final

from llmpod.cache.cold import MAX_LENGTH, MAX_OFFSET, MAX_SLOTS, length_of, place_of, slot_of

_LARGEST: Final = 64 * 2**20
_FEW: Final = 64


def capacity(max_bytes: int) -> int:
    """Bytes of entries that files of so many bytes are to hold."""
    return max_bytes - max_bytes * 3 // 16


class Segment:
    """One file: its number (in its name), its slot in our table, its bytes, and how many of them are wanted."""

    __slots__ = ("live", "newest", "number", "oldest", "size", "slot")

    def __init__(self, number: int, slot: int) -> None:
        self.number = number
        self.slot = slot
        self.size = 0
        self.live = 0
        self.newest = 0.0  # the latest stored_at of what it holds
        self.oldest = float("inf")


class Space:
    """The segments of one directory.

    Args:
        max_bytes: of all files together.

    Attributes:
        real: bytes of the segments, dead ones included.
        live: bytes of the records that are wanted.
        extra: bytes of other files that count.
        written: bytes ever placed.
        on_dead: told of each segment that is no longer wanted; it is off the books already.
    """

    def __init__(self, max_bytes: int) -> None:
        self._bound(max_bytes)
        self.written = 0
        self.on_dead: Callable[[Segment], None] = lambda _segment: None
        self.reset({})

    def _bound(self, max_bytes: int) -> None:
        self.limit = max_bytes
        self.segment_bytes = max(1, min(max_bytes // 32, _LARGEST, MAX_OFFSET))

    def resize(self, max_bytes: int) -> None:
        """Another limit. Tidying brings files that are too large for it below it, as those of another process."""
        self._bound(max_bytes)
        self.seal()
        self._inherited = self.real + self.live if self.real > self.limit else 0

    def reset(self, segments: dict[int, Segment], *, after: int = 0) -> None:
        """Takes over what was found on disk: segments by slot. None of them is written to again.

        Args:
            segments: owned by us from here on.
            after: new segments get larger numbers than this.
        """
        self.segments = segments
        self.active: Segment | None = None
        self.real = sum(segment.size for segment in segments.values())
        self.live = sum(segment.live for segment in segments.values())
        self._inherited = self.real + self.live if self.real > self.limit else 0
        self.extra = 0
        self._last = max([after, *(segment.number for segment in segments.values())])
        self._free = [slot for slot in range(max(segments, default=-1) + 1) if slot not in segments]

    # --- taking --------------------------------------------------------------------------------------------------
    def take(self, length: int, stored_at: float, *, tidying: bool = False) -> int | None:
        """A place for a record; None while there is no room for it."""
        limit = max(self.limit, self._inherited) if tidying else self.limit - self.segment_bytes
        if self.active is not None and not self.active.live and self.real + self.extra + length > limit:
            self.seal()
        if self.real + self.extra + length > limit or length >= MAX_LENGTH:
            return None
        active = self.active
        if active is None or (active.size and active.size + length > self.segment_bytes):
            active = self._begin()
            if active is None:
                return None
        place = place_of(active.slot, active.size, length)
        active.size += length
        active.live += length
        active.newest = max(active.newest, stored_at)
        active.oldest = min(active.oldest, stored_at)
        self.real += length
        self.live += length
        self.written += length
        return place

    @property
    def end(self) -> tuple[int, int]:
        """The number of the last segment and its size: what is written later lies behind that."""
        last = next((s for s in self.segments.values() if s.number == self._last), None)
        return self._last, last.size if last is not None else 0

    def _begin(self) -> Segment | None:
        self.seal()
        if not self._free and len(self.segments) == MAX_SLOTS:
            return None
        slot = self._free.pop() if self._free else len(self.segments)
        self._last += 1
        self.active = self.segments[slot] = Segment(self._last, slot)
        return self.active

    def seal(self) -> None:
        """Nothing more goes into the segment that grew until now."""
        sealed, self.active = self.active, None
        if sealed is not None and not sealed.live:
            self.retire(sealed)

    # --- giving back ---------------------------------------------------------------------------------------------
    def release(self, place: int) -> None:
        """A record is no longer wanted."""
        length, segment = length_of(place), self.segments[slot_of(place)]
        segment.live -= length
        self.live -= length
        if not segment.live and segment is not self.active:
            self.retire(segment)

    def retire(self, segment: Segment) -> None:
        """Takes a segment off the books."""
        del self.segments[segment.slot]
        self._free.append(segment.slot)
        self.real -= segment.size
        self.live -= segment.live
        if self.real <= self.limit:
            self._inherited = 0
        self.on_dead(segment)

    # --- tidying -------------------------------------------------------------------------------------------------
    @property
    def crowded(self) -> bool:
        """Puts may soon be refused for want of room."""
        return self.real + self.extra > self.limit - 2 * self.segment_bytes

    def victim(self, horizon: float) -> Segment | None:
        """The segment to be tidied next; None when none needs it.

        Args:
            horizon: what was stored before has expired.
        """
        sealed = [segment for segment in self.segments.values() if segment is not self.active]
        expired = next((segment for segment in sealed if segment.newest < horizon), None)
        if expired is not None:
            return expired
        wasteful = self.real > 2 * self.live + 4 * self.segment_bytes
        scattered = len(sealed) > _FEW + 2 * self.real // self.segment_bytes
        if scattered:
            return min(sealed, key=lambda segment: segment.size)
        dead = [segment for segment in sealed if segment.live < segment.size]
        if dead and (self.crowded or wasteful):
            return min(dead, key=lambda segment: segment.live / segment.size)
        return None
