"""Not a queue: one reader's place in a flight (``flight.py``), which keeps the bytes once for all readers."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmpod.cache.flight import Flight


class Listener:
    """One reader of a flight: ``take`` gives the body's chunks, from the first byte on.

    Counts as a listener from ``Flight.follow()`` until ``close()``. The bytes are at their end when ``take`` gives
    None and the flight is ``over``.

    Args:
        wake: called when there may be something new: the head, bytes, the end. Never after ``close``.
    """

    __slots__ = ("_flight", "bytes", "open", "position", "wake")

    def __init__(self, flight: "Flight", wake: Callable[[], None]) -> None:
        self.position = 0  # number of the next chunk
        self.bytes = 0  # in those before it
        self.wake = wake
        self.open = True
        self._flight = flight

    def take(self) -> bytes | None:
        """The next bytes; None when there are none at the moment.

        Raises:
            Overloaded: they came and went while this reader was busy: it is far slower than another one.
        """
        flight = self._flight
        chunk = flight.chunk(self.position)
        if chunk is not None:
            self.position += 1
            self.bytes += len(chunk)
            flight.lead = max(flight.lead, self.bytes)
            if flight.spilled or flight.when_room is not None:
                flight.taken()
        return chunk

    def close(self) -> None:
        """Leaves. Idempotent."""
        if self.open:
            self.open = False
            self.wake = _nothing  # the reader often holds us: a cycle that only the collector would free
            self._flight.left(self)


def _nothing() -> None:
    """Nobody is to be woken any more."""
