"""Not the cache: the tier of it that answers at once, bounded in bytes, least recently used first out.

``get`` is the hot path: one look-up and one move to the end. Which entries were used since the disk was told is
known all the same, without a step per hit: ``touched`` puts a marker at the end of the order, and whatever stands
behind the marker at the next call has been used since.
"""

from collections import OrderedDict, deque
from typing import Final

from llmpod.cache.entry import Entry

_LEFT_KEYS: Final = (
    16384  # what leaves beyond that between two calls of touched() is remembered as used earlier
)
_MARKER: Final = b"marker"  # no digest has six bytes
_MARK: Final = Entry(b"\0" * 32, "", False, "", b"", 0.0, "", False)  # noqa: FBT003 - fields, not switches
_ALWAYS: Final = float("-inf")


class MemoryTier:
    """Entries by key, oldest use first.

    Args:
        max_bytes: bound of ``bytes``, which counts bodies, attached buffers and Python's own overhead.

    Attributes:
        horizon: what was stored before this time has expired.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.horizon = _ALWAYS
        self._entries: OrderedDict[bytes, Entry] = OrderedDict({_MARKER: _MARK})
        self._left: deque[bytes] = deque(maxlen=_LEFT_KEYS)  # used since the last mark, and no longer here

    def __len__(self) -> int:
        return len(self._entries) - (_MARKER in self._entries)

    def get(self, key: bytes) -> Entry | None:
        """The entry, which becomes the most recently used; None when it is not here or has expired."""
        entry = self._entries.get(key)
        if entry is not None:
            if entry.stored_at < self.horizon:
                return None
            entry.tally[0] += 1
            self._entries.move_to_end(key)
        return entry

    def look(self, key: bytes) -> Entry | None:
        """As ``get``, without being a use."""
        return self._entries.get(key)

    def add(self, entry: Entry) -> list[Entry]:
        """Takes an entry in, as the most recently used one, in place of any other of its key.

        Returns:
            The entries that had to leave for it, oldest first; the new one itself when it alone is too large.
        """
        self.pop(entry.key)
        self._entries[entry.key] = entry
        self.bytes += entry.memory
        return self._shrink()

    def attach(self, entry: Entry, name: str, buffer: bytes) -> list[Entry]:
        """Hangs a finished response onto an entry that is here, and counts it.

        Returns:
            The entries that had to leave. Nothing happens to one that has left already or that would be too large.
        """
        before = entry.memory
        grown = before + len(buffer) - len(entry.prebuilt.get(name, b""))
        if self._entries.get(entry.key) is not entry or grown > self.max_bytes:
            return []
        entry.prebuilt[name] = buffer
        self.bytes += grown - before
        self._entries.move_to_end(entry.key)  # so that it is not the one to go for its own buffer
        return self._shrink()

    def pop(self, key: bytes) -> Entry | None:
        """Takes an entry out."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.memory
        return entry

    def pop_oldest(self) -> Entry | None:
        """Takes out the least recently used entry; None when there is none."""
        while self._entries:
            key, entry = self._entries.popitem(last=False)
            if key == _MARKER:
                continue
            if _MARKER not in self._entries:
                self._left.append(key)
            self.bytes -= entry.memory
            return entry
        return None

    def clear(self) -> None:
        """Drops everything."""
        self._entries.clear()
        self._left.clear()
        self.bytes = 0

    def touched(self) -> list[bytes]:
        """Keys used since the last call, oldest use first."""
        keys = list(self._left)
        self._left.clear()
        behind: list[bytes] = []
        for key in reversed(self._entries):
            if key == _MARKER:
                break
            behind.append(key)
        keys += reversed(behind)
        self._entries[_MARKER] = _MARK
        self._entries.move_to_end(_MARKER)
        return keys

    def order(self) -> list[bytes]:
        """All keys, least recently used first."""
        return [key for key in self._entries if key != _MARKER]

    def _shrink(self) -> list[Entry]:
        gone = []
        while self.bytes > self.max_bytes and (entry := self.pop_oldest()):
            gone.append(entry)
        return gone
