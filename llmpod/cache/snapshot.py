"""Not needed, only quick: the books as one file, so that a start does not have to walk through all segments.

Magic, then how far into the last segment it tells (number and offset), the numbers of segments and rows; for each
segment its number, slot, size, wanted bytes and latest ``stored_at``; then the first 60 bits of all keys, and the
places of all records, in the order of use, eight bytes each; and the MAC over all that. One that is damaged, or
whose segments are not there, is not used, or as far as they are: the segments hold the same and more.
"""

import os
import struct
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from llmpod.cache import files
from llmpod.cache.entry import MAC_BYTES, Corrupt, Signer
from llmpod.cache.space import Segment

MAGIC: Final = b"LPI2"
_HEAD: Final = struct.Struct("<4sIQQQ")
_SEGMENT: Final = struct.Struct("<QQQQd")
_STEP: Final = 4096
_NAP: Final = 0.0005  # seconds; lets other threads have the interpreter between two steps


class Books(NamedTuple):
    """What a snapshot says: the books after the record that ends at ``offset`` in segment ``number``."""

    number: int
    offset: int
    segments: list[Segment]
    keys: Sequence[int]
    places: Sequence[int]

    @property
    def file_bytes(self) -> int:
        """Bytes of the snapshot that holds this."""
        return _HEAD.size + _SEGMENT.size * len(self.segments) + 16 * len(self.keys) + MAC_BYTES


def _raw(values: Sequence[int]) -> bytes:
    numbers = array("Q")
    for start in range(0, len(values), _STEP):
        numbers.extend(values[start : start + _STEP])
        if len(values) > 16 * _STEP:
            time.sleep(_NAP)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _numbers(data: bytes) -> "array[int]":
    numbers = array("Q", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def write(books: Books, root: int, signer: Signer) -> None:
    """Puts a snapshot in its place. Raises OSError."""
    head = _HEAD.pack(MAGIC, len(books.segments), books.number, books.offset, len(books.keys))
    table = b"".join(_SEGMENT.pack(s.number, s.slot, s.size, s.live, s.newest) for s in books.segments)
    data = b"".join((head, table, _raw(books.keys), _raw(books.places)))
    files.replace(files.SNAPSHOT, root, [data, signer.sign(data)])


def read(root: int, signer: Signer) -> Books:
    """The snapshot of a directory.

    Raises:
        OSError: there is none that can be read.
        Corrupt: it is not what was written.
    """
    with files.reading(files.SNAPSHOT, root) as fd, os.fdopen(fd, "rb", closefd=False) as file:
        data = file.read()
    end = len(data) - MAC_BYTES
    if end < _HEAD.size or not signer.check(data, 0, end):
        raise Corrupt("the MAC does not match")
    magic, segments, number, offset, rows = _HEAD.unpack_from(data)
    first = _HEAD.size + segments * _SEGMENT.size
    if magic != MAGIC or first + 16 * rows != end:
        raise Corrupt("it is no snapshot of this version")
    table = [_segment(data, _HEAD.size + index * _SEGMENT.size) for index in range(segments)]
    middle = first + 8 * rows
    return Books(number, offset, table, _numbers(data[first:middle]), _numbers(data[middle:end]))


def _segment(data: bytes, start: int) -> Segment:
    number, slot, size, live, newest = _SEGMENT.unpack_from(data, start)
    segment = Segment(number, slot)
    segment.size, segment.live, segment.newest = size, live, newest
    return segment


def load(books: Books, wanted: Callable[[int], bool] | None, stopped: Callable[[], bool]) -> dict[int, int]:
    """The rows as a dictionary, in small steps. ``wanted`` tells by the place; None: all are."""
    places: dict[int, int] = {}
    for start in range(0, len(books.keys), _STEP):
        rows = zip(books.keys[start : start + _STEP], books.places[start : start + _STEP], strict=True)
        places.update(rows if wanted is None else [row for row in rows if wanted(row[1])])
        time.sleep(_NAP)
        if stopped():
            break
    return places
