"""Not asynchronous and touching no file: which entries the cache has, where, and which must go.

An entry is in memory, or on disk only (``cold``), never both. An entry in memory has a record on disk (or one under
way) unless it is ``volatile``. Together that is one order of use: the cold ones, oldest first, then those in memory,
oldest first; for what leaves memory is by construction used more recently than all that left before it.

Both limits hold after every call, because room is made before anything is taken in.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from llmpod.cache.entry import Entry
from llmpod.cache.memory import MemoryTier


class Index:
    """The books of the cache.

    Args:
        max_entries: entries in memory and on disk together.
        max_bytes: bytes of their records.
        memory_bytes: bytes of those in memory.

    Attributes:
        on_remove: called with the key of each record that must leave the disk.
    """

    def __init__(self, *, max_entries: int, max_bytes: int, memory_bytes: int) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.memory = MemoryTier(memory_bytes)
        self.cold: OrderedDict[bytes, int] = OrderedDict()
        self.volatile: set[bytes] = set()
        self.bytes = 0
        self.evicted = 0
        self.on_remove: Callable[[bytes], None] = lambda _key: None

    def __len__(self) -> int:
        return len(self.memory) + len(self.cold)

    def fits(self, entry: Entry) -> bool:
        """True for an entry that can be taken in at all."""
        small = entry.size <= self.max_bytes and entry.memory <= self.memory.max_bytes
        return small and self.max_entries > 0

    def add(self, entry: Entry, *, volatile: bool) -> None:
        """Takes an entry into memory as the most recently used one, in place of any other of its key."""
        self.forget(entry.key)
        self._make_room(1, entry.size)
        if volatile:
            self.volatile.add(entry.key)
        self.bytes += entry.size
        self.cool(self.memory.add(entry))

    def cool(self, entries: Iterable[Entry]) -> None:
        """Books entries out of memory: to the disk, or, where they have no record, out of the cache."""
        for entry in entries:
            if entry.key in self.volatile:
                self.volatile.discard(entry.key)
                self.bytes -= entry.size
                self.evicted += 1
            else:
                self.cold[entry.key] = entry.size

    def forget(self, key: bytes) -> bool:
        """Drops an entry from the books; its record, if any, is the caller's. False when there was none."""
        entry = self.memory.pop(key)
        size = entry.size if entry else self.cold.pop(key, None)
        self.volatile.discard(key)
        if size is None:
            return False
        self.bytes -= size
        return True

    def adopt(self, found: OrderedDict[bytes, int], size: int) -> None:
        """Takes over the records that a scan found, as older than all that is known.

        Its cost depends on what is known already, not on what was found.

        Args:
            found: size by key, oldest first; owned by the index from here on.
            size: sum of the sizes.
        """
        for entry in self.volatile_entries():
            if entry.key in found and not entry.has_usage:
                self.forget(entry.key)  # the record may say how many tokens were used
        for key in [*self.memory.order(), *self.cold]:
            size -= found.pop(key, 0)
        found.update(self.cold)
        self.cold = found
        self.bytes += size
        self._make_room(0, 0)

    def volatile_entries(self) -> list[Entry]:
        """Entries that have no record, least recently used first."""
        entries = (self.memory.look(key) for key in self.memory.order() if key in self.volatile)
        return [entry for entry in entries if entry is not None]

    def forget_records(self) -> None:
        """Drops all that has a record on disk: the records are gone."""
        self.clear_cold()
        for key in self.memory.order():
            if key not in self.volatile:
                self.forget(key)

    def clear(self) -> None:
        """Drops everything."""
        self.clear_cold()
        self.memory.clear()
        self.volatile.clear()
        self.bytes = 0

    def clear_cold(self) -> None:
        """Drops what is on disk only."""
        self.bytes -= sum(self.cold.values())
        self.cold = OrderedDict()

    def order(self) -> list[bytes]:
        """All keys, least recently used first."""
        return [*self.cold, *self.memory.order()]

    def _make_room(self, entries: int, size: int) -> None:
        while len(self) and (len(self) + entries > self.max_entries or self.bytes + size > self.max_bytes):
            self._evict()

    def _evict(self) -> None:
        self.evicted += 1
        if self.cold:
            key, size = self.cold.popitem(last=False)
        else:
            entry = self.memory.pop_oldest()
            if entry is None:
                return
            key, size = entry.key, entry.size
        self.bytes -= size
        if key in self.volatile:
            self.volatile.discard(key)
        else:
            self.on_remove(key)
