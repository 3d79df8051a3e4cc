"""Not a check of contents: finds the records in a segment's bytes, whatever has happened to some of them.

Only frames are looked at here. A frame that does not add up is skipped by searching for the next one, so that
damage costs the records it hits; what a found record holds is believed by nobody before its MAC was checked.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from llmpod.cache.entry import COVERED, ENTRY, FRONT, HEAD_BYTES, MAC_BYTES, MAGIC, USES, padded

USE: Final = struct.Struct("<QII")  # 60 bits of the key, seconds since the epoch, hits
_CHUNK: Final = 256 * 1024  # small: between two reads others get the interpreter


class Frame(NamedTuple):
    """Where a record lies and what its frame says; nothing of it is proven."""

    offset: int
    length: int
    state: int
    kind: int
    stored_at: float
    key: bytes


def frame_at(data: bytes, place: int, offset: int) -> Frame | None:
    """The frame at ``data[place]``, which is ``offset`` in its segment; None when there is none."""
    magic, state, crc = FRONT.unpack_from(data, place)
    if magic != MAGIC or zlib.crc32(data[place + FRONT.size : place + HEAD_BYTES]) != crc:
        return None
    kind, header, body, request, stored_at, key = COVERED.unpack_from(data, place + FRONT.size)
    if kind not in (ENTRY, USES):
        return None
    length = padded(HEAD_BYTES + header + body + request + MAC_BYTES)
    return Frame(offset, length, state, kind, stored_at, key)


class Walk:
    """The frames of an open segment, in order.

    Args:
        fd: the file.
        start: where to begin.
        size: where it ends.

    Attributes:
        position: up to where it has been walked: after the last whole record that was found.
        damaged: bytes that belong to no record.
    """

    def __init__(self, fd: int, start: int, size: int) -> None:
        self.position = start
        self.damaged = 0
        self._fd = fd
        self._size = size

    def __iter__(self) -> Iterator[Frame]:
        offset = self.position
        while offset + HEAD_BYTES <= self._size:
            data = os.pread(self._fd, min(_CHUNK, self._size - offset), offset)
            if len(data) < HEAD_BYTES:
                break
            base, end = offset, len(data) - HEAD_BYTES
            while offset - base <= end:
                frame = frame_at(data, offset - base, offset)
                if frame is None or offset + frame.length > self._size:
                    offset = self._resume(data, base, offset)
                    continue
                offset += frame.length
                self.position = offset
                yield frame
        self.damaged += max(0, self._size - offset)

    def _resume(self, data: bytes, base: int, offset: int) -> int:
        """Where the next record may begin: a magic at a multiple of 8, or as far as none was seen."""
        place = offset - base + 8
        while (place := data.find(MAGIC, place)) >= 0 and place % 8:
            place += 1
        found = base + (place if place >= 0 else max((len(data) - HEAD_BYTES & ~7) + 8, offset - base + 8))
        self.damaged += found - offset
        return found
