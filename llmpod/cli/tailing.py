"""Not a log reader: the end of a growing text file, and what is added to it, also over its rotation."""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Self

_PAST_BYTES = 16 * 2**20


class Tail:
    """One file, read from its end on. A context manager.

    Args:
        path: the file; another process appends to it, and may move it away and begin a new one.

    Raises:
        FileNotFoundError: there is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def past(self, count: int) -> list[str]:
        """The last ``count`` lines; :meth:`more` goes on after them. Looks at 16 MiB at most."""
        self._file.seek(max(self._file.seek(0, 2) - _PAST_BYTES, 0))
        return list(deque(self._lines(), maxlen=count))

    def more(self) -> Iterator[str]:
        """The lines that were added since."""
        yield from self._lines()
        if self._is_other():
            yield from self._lines()  # what was written between the last look and the rotation
            self._file.close()
            self._file = self._path.open("rb")
            self._rest = b""
            yield from self._lines()

    def _is_other(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:  # between the two steps of a rotation
            return False
        here = os.fstat(self._file.fileno())
        return not os.path.samestat(here, there) or there.st_size < self._file.tell()

    def _lines(self) -> Iterator[str]:
        """Whole lines; the beginning of one is kept until its end is written."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in lines)
