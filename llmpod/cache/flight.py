"""Not a client of the model server: one answer on its way, shared by everybody who asked the same meanwhile.

Whoever asks first leads: it starts a task of its own that fetches the answer and feeds the flight, and then
listens like the others. So nobody's connection carries anybody else's answer, and a leader whose client hangs up
takes nothing with it. A listener that comes late gets the bytes from the first one on and then follows live.

Not thread-safe: one event loop owns a ``Flights`` table and everything in it. Waiting is done on a future of one's
own each time, because cancelling a task cancels the future it waits for, and a shared one would take the others
with it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from llmpod.cache.listener import Listener
from llmpod.errors import Overloaded, UpstreamUnreachable

BUFFER_BYTES: Final = 8 * 2**20


class Head(NamedTuple):
    """What came before the first byte of the body."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]


class _Signal:
    """Wakes every task that waits; each waits on a future of its own."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def send(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


class Flight:
    """One upstream answer in the making.

    The task that fetches it calls ``start``, ``append``, then one of ``finish`` and ``fail``; others ``follow``.
    Store a complete answer *before* ``finish``: whoever asks after it must find it in the cache.

    Attributes:
        digest: the question.
        finished: the body is complete.
        error: why it never will be.
        size: bytes of body so far.
        spilled: the body outgrew the buffer; nobody may join any more and it cannot be cached.
        abandoned: set while there is no listener, once there has been one.
    """

    def __init__(self, digest: bytes, *, max_bytes: int, ended: Callable[["Flight"], None]) -> None:
        self.digest = digest
        self.finished = False
        self.error: Exception | None = None
        self.size = 0
        self.spilled = False
        self.abandoned = asyncio.Event()
        self._begun = _Signal()
        self._room = _Signal()
        self._max_bytes = max_bytes
        self._ended = ended
        self._head: Head | None = None
        self._chunks: deque[bytes] = deque()
        self._kept = 0  # bytes in them
        self._dropped = 0  # chunks that have left the buffer
        self._listeners: set[Listener] = set()

    def __repr__(self) -> str:
        state = "failed" if self.error else "finished" if self.finished else "flying"
        return f"<Flight {self.digest.hex()[:8]} {state}, {self.size} bytes, {self.listeners} listening>"

    # --- for listeners -------------------------------------------------------------------------------------------
    @property
    def listeners(self) -> int:
        return len(self._listeners)

    @property
    def started(self) -> bool:
        """Something has come from upstream: from now on a failure cannot be hidden by asking again."""
        return self._head is not None

    async def head(self) -> Head:
        """Status and headers, as soon as they are there. Raises what ``fail`` was given before that."""
        while self._head is None:
            if self.error is not None:
                raise self.error
            await self._begun.wait()
        return self._head

    def follow(self) -> Listener:
        """Joins; call it in the same step as ``Flights.lead_or_join``, before the first await.

        Raises:
            Overloaded: the first bytes are no longer there (``spilled``).
        """
        if self._dropped:
            raise Overloaded("This answer is too long to be joined in the middle.")
        listener = Listener(self)
        self._listeners.add(listener)
        self.abandoned.clear()
        return listener

    def body(self) -> bytes:
        """The whole body so far, for the cache. Raises Overloaded when it was not kept."""
        if self.spilled:
            raise Overloaded("This answer is too long to be kept.")
        return b"".join(self._chunks)

    # --- for the task that fetches -------------------------------------------------------------------------------
    def start(self, status: int, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self._head = Head(status, headers)
        self._begun.send()

    def append(self, chunk: bytes) -> None:
        """The next bytes of the body. When ``crowded`` is true afterwards, await ``room()`` before reading on."""
        if not chunk:
            return
        self._chunks.append(chunk)
        self._kept += len(chunk)
        self.size += len(chunk)
        if self.size > self._max_bytes:
            self._spill()
        for listener in self._listeners:
            listener.wake()

    def finish(self) -> None:
        self.finished = True
        self._end()

    def fail(self, error: Exception) -> None:
        """Ends it badly. Listeners get the bytes that came and then this error, never a clean end."""
        self.error = error
        self._end()

    def give_up(self) -> bool:
        """To call when ``abandoned`` was set. True: still nobody listens and nobody can join; cancel upstream."""
        if self._listeners:
            return False
        if not self.finished and self.error is None:
            self.fail(UpstreamUnreachable("Everybody who wanted this answer has left."))
        return True

    @property
    def crowded(self) -> bool:
        """Even the quickest listener is a whole buffer behind: upstream must wait."""
        return self.spilled and bool(self._listeners) and self._kept > self._max_bytes

    async def room(self) -> None:
        """Waits until a listener has taken something (or all have left)."""
        while self.crowded:
            await self._room.wait()

    # --- between a flight and its listeners ----------------------------------------------------------------------
    def chunk(self, number: int) -> bytes | None:
        """The chunk with this number; None when it has not come yet.

        Raises:
            Overloaded: it came and went while this listener was busy.
        """
        place = number - self._dropped
        if place < 0:
            raise Overloaded("This client reads too slowly to share a long answer with others.")
        return self._chunks[place] if place < len(self._chunks) else None

    def taken(self) -> None:
        """A listener has moved on: what nobody needs any more can go."""
        self._trim()
        self._room.send()

    def left(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if self.spilled:
            self.taken()
        if not self._listeners:
            self.abandoned.set()

    # --- inside --------------------------------------------------------------------------------------------------
    def _spill(self) -> None:
        if not self.spilled:
            self.spilled = True
            self._ended(self)
        self._trim()

    def _trim(self) -> None:
        """Drops what everybody has, and what only laggards lack: the quickest one sets the pace."""
        last = self._dropped + len(self._chunks)
        quickest = max((listener.position for listener in self._listeners), default=last)
        slowest = min((listener.position for listener in self._listeners), default=last)
        while self._chunks and (
            self._dropped < slowest or (self._dropped < quickest and self._kept > self._max_bytes)
        ):
            self._kept -= len(self._chunks.popleft())
            self._dropped += 1

    def _end(self) -> None:
        self._ended(self)
        self._begun.send()
        self._room.send()
        for listener in self._listeners:
            listener.wake()


class Flights:
    """The answers on their way, by question.

    Args:
        max_buffer_bytes: how much of a body is kept for latecomers and the cache.
    """

    def __init__(self, *, max_buffer_bytes: int = BUFFER_BYTES) -> None:
        self._max_buffer_bytes = max_buffer_bytes
        self._flights: dict[bytes, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def lead_or_join(self, digest: bytes) -> tuple[Flight, bool]:
        """The flight for this question, and whether the caller must fetch the answer.

        Call ``Flight.follow()`` before the next await, whether leading or not.
        """
        flight = self._flights.get(digest)
        if flight is not None:
            return flight, False
        flight = Flight(digest, max_bytes=self._max_buffer_bytes, ended=self._remove)
        self._flights[digest] = flight
        return flight, True

    def _remove(self, flight: Flight) -> None:
        if self._flights.get(flight.digest) is flight:
            del self._flights[flight.digest]
