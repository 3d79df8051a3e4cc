"""Not a client of the model server: one answer on its way, shared by everybody who asked the same meanwhile.

Whoever asks first has somebody fetch the answer and feed the flight, and then listens like the others. So nobody's
connection carries anybody else's answer, and a leader whose client hangs up takes nothing with it. A listener that
comes late gets the bytes from the first one on and then follows live.

No task and no future: bytes that come are handed on within the call that brings them. Not thread-safe: one event
loop owns a ``Flights`` table and everything in it.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from llmpod.cache.listener import Listener
from llmpod.errors import Overloaded

BUFFER_BYTES: Final = 8 * 2**20
MOST_BEHIND: Final = 64 * 2**10  # evens out two speeds; who never reads must not fill our memory


class Head(NamedTuple):
    """What came before the first byte of the body."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]


class Flight:
    """One upstream answer in the making.

    Who fetches it calls ``start``, ``append``, then one of ``finish`` and ``fail``; others ``follow``.
    Store a complete answer *before* ``finish``: whoever asks after it must find it in the cache.

    Attributes:
        digest: the question.
        head: status and header fields, as soon as they are there.
        finished: the body is complete.
        error: why it never will be.
        size: bytes of body so far.
        lead: of them, those that the quickest listener has.
        spilled: the body outgrew the buffer; nobody may join any more and it cannot be cached.
        quiet: how often whoever fetches has said that nothing came for a while.
        when_room: called once, as soon as it is no longer ``crowded``.
    """

    __slots__ = (
        "_chunks",
        "_dropped",
        "_ended",
        "_kept",
        "_listeners",
        "_max_bytes",
        "digest",
        "error",
        "finished",
        "head",
        "lead",
        "quiet",
        "size",
        "spilled",
        "when_room",
    )

    def __init__(self, digest: bytes, *, max_bytes: int, ended: Callable[["Flight"], None]) -> None:
        self.digest = digest
        self.head: Head | None = None
        self.finished = False
        self.error: Exception | None = None
        self.quiet = 0
        self.size = 0
        self.lead = 0
        self.spilled = False
        self.when_room: Callable[[], None] | None = None
        self._max_bytes = max_bytes
        self._ended = ended
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
    def over(self) -> bool:
        """Nothing more will come."""
        return self.finished or self.error is not None

    def follow(self, wake: Callable[[], None]) -> Listener:
        """Joins; ``wake`` is called at whatever comes from now on, not for what is there already.

        Raises:
            Overloaded: the first bytes are no longer there (``spilled``).
        """
        if self._dropped:
            raise Overloaded("This answer is too long to be joined in the middle.")
        listener = Listener(self, wake)
        self._listeners.add(listener)
        return listener

    def body(self) -> bytes:
        """The whole body so far, for the cache. Raises Overloaded when it was not kept."""
        if self.spilled:
            raise Overloaded("This answer is too long to be kept.")
        return b"".join(self._chunks) if len(self._chunks) != 1 else self._chunks[0]

    # --- for whoever fetches -------------------------------------------------------------------------------------
    def start(
        self, status: int, headers: tuple[tuple[bytes, bytes], ...] = (), *, quiet: bool = False
    ) -> None:
        """Status and fields. ``quiet``: bytes follow at once, and waking for both is enough."""
        self.head = Head(status, headers)
        if not quiet:
            self._wake()

    def append(self, chunk: bytes) -> None:
        """The next bytes of the body. When ``crowded`` is true afterwards, read on only at ``when_room``."""
        if not chunk:
            return
        self._chunks.append(chunk)
        self._kept += len(chunk)
        self.size += len(chunk)
        if self.size > self._max_bytes:
            self._spill()
        self._wake()

    def still_waiting(self) -> None:
        """Nothing has come of the body yet: who listens may want to tell a client that it is not forgotten."""
        self.quiet += 1
        self._wake()

    def finish(self) -> None:
        self.finished = True
        self._end()

    def fail(self, error: Exception) -> None:
        """Ends it badly. Listeners get the bytes that came and then this error, never a clean end."""
        self.error = error
        self._end()

    @property
    def crowded(self) -> bool:
        """Even the quickest listener is far behind: upstream must wait."""
        return self.size - self.lead > min(self._max_bytes, MOST_BEHIND) and bool(self._listeners)

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
        if self.spilled:
            self._trim()
        if self.when_room is not None and not self.crowded:
            go_on, self.when_room = self.when_room, None
            go_on()

    def left(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        self.lead = max((other.bytes for other in self._listeners), default=0)
        self.taken()

    # --- inside --------------------------------------------------------------------------------------------------
    def _wake(self) -> None:
        for listener in tuple(self._listeners):  # some may leave while they are woken
            listener.wake()

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
        self._wake()


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
