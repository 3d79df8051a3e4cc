"""Not asynchronous and touching no file: which entries the cache has, where, and which must go.

An entry is in memory, or on disk only (``cold``), never both. One in memory is ``located`` when it has a record on
disk (or one under way), else ``volatile``. Together that is one order of use: the cold ones, oldest first, then those
in memory, oldest first; for what leaves memory is by construction used more recently than all that left before it.

Both limits hold after every call, because room is made before anything is taken in.
"""

from collections.abc import Callable, Iterable

from llmpod.cache.cold import Cold, length_of, short, slot_of
from llmpod.cache.entry import Entry
from llmpod.cache.memory import MemoryTier


def _nothing(_place: int, *, erase: bytes | None) -> None:
    """There is no disk (any more)."""


class Index:
    """The books of the cache.

    Args:
        max_entries: entries in memory and on disk together.
        max_bytes: bytes of their records.
        memory_bytes: bytes of those in memory.

    Attributes:
        on_gone: called with the place of each record that is no longer wanted, and its key where the contents must
            go at once (because a newer one took its place, or somebody said so), not just whenever room is needed.
    """

    def __init__(self, *, max_entries: int, max_bytes: int, memory_bytes: int) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.memory = MemoryTier(memory_bytes)
        self.cold = Cold()
        self.located: dict[bytes, int] = {}
        self.volatile: set[bytes] = set()
        self.bytes = 0
        self.evicted = 0
        self.on_gone: Callable[..., None] = _nothing

    def __len__(self) -> int:
        return len(self.memory) + len(self.cold)

    def resize(self, max_entries: int, max_bytes: int) -> None:
        """Other limits; they hold on return."""
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self._make_room(0, 0)

    def disconnect(self) -> None:
        """There is no disk any more."""
        self.on_gone = _nothing

    def fits(self, entry: Entry) -> bool:
        """True for an entry that can be taken in at all."""
        small = entry.size <= self.max_bytes and entry.memory <= self.memory.max_bytes
        return small and self.max_entries > 0

    def place(self, key: bytes) -> int | None:
        """Where an entry's record is or will be; None when it has none."""
        return self.located.get(key) or self.cold.get(key)

    # --- in ------------------------------------------------------------------------------------------------------
    def add(self, entry: Entry) -> None:
        """Takes a new entry into memory as the most recently used one, in place of any other of its key."""
        self.forget(entry.key, erase=True)
        self._make_room(1, entry.size)
        self.volatile.add(entry.key)
        self.bytes += entry.size
        self.cool(self.memory.add(entry))

    def warm(self, entry: Entry) -> None:
        """Takes an entry from the disk (or on its way there) into memory, as the most recently used one."""
        place = self.cold.pop(entry.key) if entry.memory <= self.memory.max_bytes else None
        if place is not None:
            self.located[entry.key] = place
            self.cool(self.memory.add(entry))

    def settle(self, entry: Entry, place: int) -> None:
        """A record has been placed for a volatile entry."""
        self.volatile.discard(entry.key)
        self.located[entry.key] = place
        self.bytes += length_of(place) - entry.size

    def unsettle(self, entry: Entry, place: int) -> None:
        """That record could not be written: the entry is volatile again, or gone if it has left memory."""
        if self.located.get(entry.key) == place:
            del self.located[entry.key]
            self.volatile.add(entry.key)
            self.bytes += entry.size - length_of(place)
            self.on_gone(place, erase=None)
        elif self.cold.get(entry.key) == place:
            self.forget(entry.key, erase=False)

    def move(self, key: bytes, old: int, new: int) -> bool:
        """A record has another place now; False when it is no longer wanted."""
        if self.located.get(key) == old:
            self.located[key] = new
        elif self.cold.get(key) == old:
            self.cold.move(key, new)
        else:
            return False
        self.on_gone(old, erase=None)
        return True

    def learn(self, key: bytes, place: int) -> None:
        """Another process has stored an entry there."""
        entry = self.memory.look(key)
        if entry is None:
            self.bytes += length_of(place)
            older = self.cold.add(key, place)
            self.bytes -= length_of(older) if older is not None else 0
            self._make_room(0, 0)
        else:
            older = self.located.get(key)
            self.bytes += length_of(place) - (entry.size if older is None else length_of(older))
            self.volatile.discard(key)
            self.located[key] = place

    def relieve(self) -> None:
        """Half of what is in memory leaves it, least recently used first: what has a record is still there."""
        most = self.memory.bytes // 2
        while self.memory.bytes > most and (entry := self.memory.pop_oldest()) is not None:
            self.cool([entry])

    # --- out -----------------------------------------------------------------------------------------------------
    def cool(self, entries: Iterable[Entry]) -> None:
        """Books entries out of memory: to the disk, or, where they have no record, out of the cache."""
        for entry in entries:
            place = self.located.pop(entry.key, None)
            if place is None:
                self.volatile.discard(entry.key)
                self.bytes -= entry.size
                self.evicted += 1
                continue
            older = self.cold.add(entry.key, place)
            if older is not None:
                self._gone(older)

    def forget(self, key: bytes, *, erase: bool) -> bool:
        """Drops an entry. False when there was none."""
        entry = self.memory.pop(key)
        if entry is None:
            place = self.cold.pop(key)
        else:
            place = self.located.pop(key, None)
            if place is None:
                self.volatile.discard(key)
                self.bytes -= entry.size
        if place is not None:
            self._gone(place, key if erase else None)
        return entry is not None or place is not None

    def forget_in(self, slot: int, keys: Iterable[int]) -> None:
        """Drops those of the cold entries that lie in one segment."""
        for digits in keys:
            place = self.cold.places.get(digits)
            if place is not None and slot_of(place) == slot:
                self.cold.pop_digits(digits)
                self._gone(place)

    def forget_cold(self, keys: Iterable[int]) -> None:
        """Drops cold entries, by the first 60 bits of their keys."""
        for digits in keys:
            place = self.cold.pop_digits(digits)
            if place is not None:
                self._gone(place)

    def _gone(self, place: int, erase: bytes | None = None) -> None:
        self.bytes -= length_of(place)
        self.on_gone(place, erase=erase)

    def _make_room(self, entries: int, size: int) -> None:
        while self.bytes + size > self.max_bytes or len(self) + entries > self.max_entries:
            if not self._evict():
                return

    def _evict(self) -> bool:
        place = self.cold.pop_oldest()
        if place is None:
            entry = self.memory.pop_oldest()
            if entry is None:
                return False
            place = self.located.pop(entry.key, None)
            if place is None:
                self.volatile.discard(entry.key)
                self.bytes -= entry.size
        if place is not None:
            self._gone(place)
        self.evicted += 1
        return True

    # --- all -----------------------------------------------------------------------------------------------------
    def adopt(self, places: dict[int, int], size: int) -> None:
        """Takes over the records that a scan found, as older than all that is known. Nothing is on disk but these.

        Its cost depends on what is known already, not on what was found.

        Args:
            places: by the first 60 bits of the key, oldest first; owned by the index from here on.
            size: sum of their lengths.
        """
        for entry in self.volatile_entries():
            place = places.get(short(entry.key))
            if place is None:
                continue
            if entry.has_usage:
                del places[short(entry.key)]
                size -= length_of(place)
                self.on_gone(place, erase=entry.key)
            else:
                self.forget(entry.key, erase=False)  # the record may say how many tokens were used
        self.bytes += size
        self.cold.replace(places)
        self._make_room(0, 0)

    def volatile_entries(self) -> list[Entry]:
        """Entries that have no record, least recently used first."""
        entries = (self.memory.look(key) for key in self.memory.order() if key in self.volatile)
        return [entry for entry in entries if entry is not None]

    def forget_records(self, *, keep_memory: bool) -> None:
        """There are no records any more. What is in memory and had one goes too, or becomes volatile."""
        self.bytes -= sum(map(length_of, self.cold.replace({}).values()))
        located, self.located = self.located, {}
        for key, place in located.items():
            self.bytes -= length_of(place)
            entry = self.memory.look(key) if keep_memory else self.memory.pop(key)
            if keep_memory and entry is not None:
                self.volatile.add(key)
                self.bytes += entry.size
        self._make_room(0, 0)

    def clear(self) -> None:
        """Drops everything."""
        self.forget_records(keep_memory=False)
        self.memory.clear()
        self.volatile.clear()
        self.bytes = 0

    def rows(self) -> tuple[list[int], list[int]]:
        """First 60 bits and place of each entry that has a record, least recently used first. 10 ms a million."""
        keys, places = list(self.cold.places), list(self.cold.places.values())
        for key in self.memory.order():
            place = self.located.get(key)
            if place is not None:
                keys.append(short(key))
                places.append(place)
        return keys, places

    def order(self) -> list[str]:
        """All keys, by their first 15 hexadecimal digits, least recently used first."""
        return [
            *(f"{digits:015x}" for digits in self.cold.places),
            *(k.hex()[:15] for k in self.memory.order()),
        ]
