"""Not a parser: a request's body while it comes, kept in little more memory than it has bytes."""

from typing import Final

MANY_PIECES: Final = 256  # a list of them would take many times their size


class Body:
    """Collects the pieces of one body."""

    __slots__ = ("_joined", "_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._joined = bytearray()
        self.size = 0

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.size += len(piece)
        if len(self._pieces) > MANY_PIECES:
            self._join()

    def whole(self) -> bytes:
        """All of it; a body that came in one piece is not copied."""
        if len(self._pieces) == 1 and not self._joined:
            return self._pieces[0]
        self._join()
        return bytes(self._joined)

    def _join(self) -> None:
        for piece in self._pieces:
            self._joined += piece
        self._pieces.clear()
