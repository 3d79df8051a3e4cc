"""Not a parser: a request's body while it comes, kept in little more memory than it has bytes."""

from typing import Final

from llmpod.proxy.sweep import LOWEST_RATE, Deadlines

MANY_PIECES: Final = 256  # a list of them would take many times their size


class Body:
    """Collects the pieces of one body.

    Attributes:
        size: bytes so far.
        mark: when its rate was looked at last, and how many bytes there were then.
    """

    __slots__ = ("_joined", "_pieces", "mark", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._joined = bytearray()
        self.size = 0
        self.mark = (0.0, 0)

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.size += len(piece)
        if len(self._pieces) > MANY_PIECES:
            self._join()

    def drips(self, since: float, now: float, deadlines: Deadlines) -> bool:
        """Whether it comes too slowly, all in all or since its rate was looked at.

        Args:
            since: when it began.
            now: the same clock.
            deadlines: how long it may rest, and how soon its rate counts.
        """
        counted = now - since - deadlines.rate_grace
        if counted > 0 and self.size < LOWEST_RATE * counted:
            return True
        at, size = max(self.mark, (since, 0))
        if now - at < deadlines.body_idle:
            return False
        self.mark = (now, self.size)
        return self.size - size < LOWEST_RATE * (now - at)

    def whole(self) -> bytes:
        """All of it, which is kept no longer; a body that came in one piece is not copied."""
        if len(self._pieces) == 1 and not self._joined:
            return self._pieces.pop()
        self._join()
        whole = bytes(self._joined)
        self._joined = bytearray()
        return whole

    def _join(self) -> None:
        for piece in self._pieces:
            self._joined += piece
        self._pieces.clear()
