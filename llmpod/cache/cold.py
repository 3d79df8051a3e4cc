"""Not a dictionary of answers: where each record on disk is, in the order of use, at about 110 bytes an entry.

A million entries are promised, so keys are the first 60 bits of the digest and places are one number: a Python
integer of up to 60 bits takes 32 bytes, a digest 80, an ``OrderedDict`` 80 more for each entry. Two questions that
share 60 bits (a chance of one in a million with a million entries) push each other out; the record itself names the
whole digest, so neither is ever served for the other.

A plain dictionary keeps the order, but finding its first key gets slow when many before it were removed; so some
of the oldest keys are known in advance (``_front``).
"""

from itertools import islice
from typing import Final

_FRONT: Final = 1024
_SLOT_BITS, _OFFSET_BITS = 16, 23
MAX_SLOTS: Final = 1 << _SLOT_BITS
MAX_OFFSET: Final = 8 << _OFFSET_BITS
MAX_LENGTH: Final = 8 << 24  # 63 bits in all: a place must fit into eight bytes of a snapshot


def short(key: bytes) -> int:
    """The first 60 bits of a digest: its first 15 hexadecimal digits."""
    return int.from_bytes(key[:8]) >> 4


def place_of(slot: int, offset: int, length: int) -> int:
    """A place as one number; offset and length are multiples of 8."""
    return (length >> 3) << (_SLOT_BITS + _OFFSET_BITS) | slot << _OFFSET_BITS | offset >> 3


def slot_of(place: int) -> int:
    """The number of the segment in the table of segments."""
    return place >> _OFFSET_BITS & (MAX_SLOTS - 1)


def offset_of(place: int) -> int:
    """Where in the segment the record begins."""
    return (place & ((1 << _OFFSET_BITS) - 1)) << 3


def length_of(place: int) -> int:
    """Bytes of the record."""
    return place >> (_SLOT_BITS + _OFFSET_BITS) << 3


class Cold:
    """Places by key, oldest use first."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self._front: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, key: bytes) -> bool:
        return short(key) in self.places

    def get(self, key: bytes) -> int | None:
        """Where the record is."""
        return self.places.get(short(key))

    def pop(self, key: bytes) -> int | None:
        """As ``get``, and forgets it."""
        if not self.places:
            return None
        return self.pop_digits(short(key))

    def pop_digits(self, digits: int) -> int | None:
        """As ``pop``, by the first 60 bits."""
        self._front.pop(digits, None)
        return self.places.pop(digits, None)

    def add(self, key: bytes, place: int) -> int | None:
        """Adds a record as the most recently used one; the place of the one that it pushed out."""
        digits = short(key)
        older = self.pop_digits(digits)
        self.places[digits] = place
        return older

    def move(self, key: bytes, place: int) -> None:
        """Notes another place for a known record, which keeps its place in the order."""
        self.places[short(key)] = place

    def pop_oldest(self) -> int | None:
        """The place of the least recently used record, which is forgotten; None when there is none."""
        if not self._front:
            self._front = dict.fromkeys(islice(self.places, _FRONT))
        for digits in self._front:
            del self._front[digits]
            return self.places.pop(digits)
        return None

    def replace(self, places: dict[int, int]) -> dict[int, int]:
        """Takes over other contents and returns the present ones."""
        older, self.places, self._front = self.places, places, {}
        return older
