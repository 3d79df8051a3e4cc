"""Not decisions and not deeds: what the event loop asks the writer to do, in order, and what it hears back."""

from dataclasses import dataclass, field
from typing import NamedTuple

from llmpod.cache.entry import Entry
from llmpod.cache.snapshot import Books

Placed = tuple[Entry, int]


class Append:
    """Add records at the end of a segment; at 0 it is a new one.

    Attributes:
        number: of the segment.
        offset: where it must end now, or somebody else has been at it.
        parts: the records.
        placed: the entries among them, with their places.
        bytes: of the parts.
        done: they have been written.
    """

    __slots__ = ("bytes", "done", "number", "offset", "parts", "placed")

    def __init__(self, number: int, offset: int) -> None:
        self.number = number
        self.offset = offset
        self.parts: list[bytes] = []
        self.placed: list[Placed] = []
        self.bytes = 0
        self.done = False

    def entry(self, entry: Entry, place: int) -> None:
        """Notes that the last record is that of an entry."""
        self.placed.append((entry, place))


class Spot(NamedTuple):
    """Where the record of a key is, in terms of files."""

    number: int
    offset: int
    length: int
    key: bytes


class Erase(NamedTuple):
    """Overwrite a record, if it is this key's."""

    spot: Spot


class Unlink(NamedTuple):
    """Remove a segment."""

    number: int


class Snap(NamedTuple):
    """Write the books down, or, with None, remove what was written down."""

    books: Books | None


Step = Append | Erase | Unlink | Snap


@dataclass
class Outcome:
    """What became of a batch.

    Attributes:
        failed: entries whose records could not be written.
        wrote: something was written.
        error: why something failed; empty when nothing did.
        lost: the directory is not the one we knew; nothing of the batch was done.
    """

    failed: list[Placed] = field(default_factory=list)
    wrote: bool = False
    error: str = ""
    lost: bool = False
