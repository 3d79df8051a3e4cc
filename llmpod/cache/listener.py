"""Not a queue: one reader's place in a flight (``flight.py``), which keeps the bytes once for all readers."""

import asyncio
from typing import TYPE_CHECKING, Self

from llmpod.errors import Overloaded

if TYPE_CHECKING:
    from llmpod.cache.flight import Flight


class Listener:
    """One reader of a flight: iterate over it to get the body's chunks, from the first byte on.

    Counts as a listener from ``Flight.follow()`` until ``close()`` (idempotent), the end of a ``with`` block, or
    the end of the body. Iteration raises what ``Flight.fail`` was given, after the bytes that came before it, and
    Overloaded when this reader was cut for being far slower than another one.
    """

    __slots__ = ("_flight", "_open", "_waiter", "position")

    def __init__(self, flight: "Flight") -> None:
        self.position = 0  # number of the next chunk
        self._flight = flight
        self._open = True
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        flight = self._flight
        while (chunk := self._next()) is None:
            if flight.error is not None:
                self.close()
                raise flight.error
            if flight.finished or not self._open:
                self.close()
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self.position += 1
        if flight.spilled:
            flight.taken()
        return chunk

    def wake(self) -> None:
        """There may be something new."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _next(self) -> bytes | None:
        try:
            return self._flight.chunk(self.position) if self._open else None
        except Overloaded:
            self.close()
            raise

    def close(self) -> None:
        """Leaves. Idempotent."""
        if self._open:
            self._open = False
            self._flight.left(self)
            self.wake()
