"""Not storing: copies what is wanted out of segments that are hardly wanted any more, so that they can be removed.

It goes in steps of 256 KB, about a millisecond of the event loop each. A copy is on disk before the books name it
and before the original goes, so that whoever reads meanwhile, or kills us, finds the one or the other.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from llmpod.cache.carrier import Carrier
from llmpod.cache.cold import place_of, slot_of
from llmpod.cache.entry import DEAD, ENTRY, moved
from llmpod.cache.index import Index
from llmpod.cache.purger import Purger
from llmpod.cache.shelf import Shelf
from llmpod.cache.space import Segment
from llmpod.cache.steps import Append
from llmpod.cache.walk import Frame

_STEP_BYTES: Final = 256 * 1024
_STEP_ROWS: Final = 4096
USES_SECONDS: Final = 30.0  # a crash forgets the order of use of the last so many
_SEAL_AT: Final = 1 / 8  # of the TTL: what has expired is off the disk when that much more has passed


class Tidier:
    """Keeps dead space small, and removes what has expired or is unwanted.

    Args:
        index: the books.
        shelf: the places of its records.
        carrier: the way to the disk.
        clock: seconds since the epoch.
        ttl_seconds: how long an entry is served after it was stored; None: for ever.
    """

    def __init__(
        self,
        index: Index,
        shelf: Shelf,
        carrier: Carrier,
        *,
        clock: Callable[[], float],
        ttl_seconds: float | None,
    ) -> None:
        self._index = index
        self._shelf = shelf
        self._space = shelf.space
        self._carrier = carrier
        self._purger = Purger(index, shelf, carrier)
        self._clock = clock
        self._ttl = ttl_seconds
        self._uses_at = 0.0

    def keep_for(self, ttl_seconds: float | None) -> None:
        """Another time to live, of what is stored already too."""
        self._ttl = ttl_seconds
        self._index.memory.horizon = float("-inf")
        self.expire()

    def expire(self) -> None:
        """Sets the time before which everything has expired."""
        if self._ttl is not None:
            self._index.memory.horizon = self._clock() - self._ttl

    async def look_after(self) -> None:
        """Does what is due."""
        await self._purger.carry_out()
        now = asyncio.get_running_loop().time()
        if now >= self._uses_at:
            self._uses_at = now + USES_SECONDS
            self._shelf.note_uses()
        active = self._space.active
        if (
            active is not None
            and self._ttl is not None
            and active.oldest < self._clock() - self._ttl * _SEAL_AT
        ):
            self._space.seal()
        horizon = self._index.memory.horizon
        while self._shelf.writable and (segment := self._space.victim(horizon)) is not None:
            await self._empty(segment, horizon)
        if self._shelf.writable and self._shelf.unnoted:
            await self._shelf.snapshot()

    async def _empty(self, segment: Segment, horizon: float) -> None:
        position: int | None = 0
        while position is not None:
            rows, position = await self._carrier.records(segment.number, position, _STEP_BYTES)
            if not self._shelf.writable or self._space.segments.get(segment.slot) is not segment:
                return
            await self._copy(segment, rows, horizon)
        await self._forget_unread(segment)

    async def _copy(self, segment: Segment, rows: list[tuple[Frame, bytes]], horizon: float) -> None:
        copies: list[tuple[bytes, int, int, Append]] = []
        for frame, record in rows:
            old = place_of(segment.slot, frame.offset, frame.length)
            wanted = frame.kind == ENTRY and frame.state != DEAD and self._index.place(frame.key) == old
            if not wanted:
                continue
            expired = frame.stored_at < horizon
            new = None if expired else self._space.take(len(record), frame.stored_at, tidying=True)
            if new is None:
                self._index.forget(frame.key, erase=False)
            else:
                copies.append((frame.key, old, new, self._shelf.append(moved(record))))
        if not copies:
            return
        landed = False
        try:
            await self._carrier.carry()
            landed = True
        finally:
            for key, old, new, step in copies if self._shelf.writable else ():
                if not (landed and step.done and self._index.move(key, old, new)):
                    self._space.release(new)

    async def _forget_unread(self, segment: Segment) -> None:
        """What could not be found in a segment any more, because it is damaged, is no longer in the books either."""
        digits = list(self._index.cold.places)
        for start in range(0, len(digits), _STEP_ROWS):
            if self._space.segments.get(segment.slot) is not segment:
                return
            self._index.forget_in(segment.slot, digits[start : start + _STEP_ROWS])
            await asyncio.sleep(0)
        for key in self._index.memory.order():
            place = self._index.located.get(key)
            if place is not None and slot_of(place) == segment.slot:
                self._index.forget(key, erase=False)
        if self._space.segments.get(segment.slot) is segment:
            self._space.retire(segment)
