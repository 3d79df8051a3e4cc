"""Not aware of HTTP: the cache, a small fast memory over a larger directory that survives restarts.

The event loop owns every decision (``index.py``) and never waits for the disk; a writer thread carries decisions
out in order (``tier.py``, ``carrier.py``, ``disk.py``). So both limits hold at every moment on disk too: a record is
removed before the one it makes room for appears.

A directory that cannot be used, or no longer, leaves a cache in memory only, with the reason in ``degraded``; what
was stored meanwhile is written once the directory works again. A directory that a person removes is taken as the
wish to forget what was in it, and made again.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

from llmpod.cache.disk import Store
from llmpod.cache.entry import Entry
from llmpod.cache.index import Index
from llmpod.cache.space import capacity
from llmpod.cache.state import Disk
from llmpod.cache.tier import DiskTier

MEMORY_BYTES: Final = 64 * 2**20
ENTRY_BYTES: Final = 8 * 2**20
TTL_SECONDS: Final = 7 * 86400.0


class Cache:
    """See ``open``. Belongs to one event loop; not thread-safe.

    Attributes:
        peek: ``peek(digest)`` is the entry if it is in memory, else None, and counts as a use. The hot path: no
            await, nothing allocated.
    """

    peek: Callable[[bytes], Entry | None]

    def __init__(self, index: Index, tier: DiskTier | None, *, entry_bytes: int, max_bytes: int) -> None:
        self.peek = index.memory.get
        self._index = index
        self._tier = tier
        self._entry_bytes = entry_bytes
        self.max_bytes = max_bytes
        self._counts = dict.fromkeys(("stored", "refused", "too_large", "disk_hits", "misses"), 0)

    @classmethod
    async def open(
        cls,
        directory: Path | None,
        *,
        max_entries: int,
        max_bytes: int,
        memory_bytes: int = MEMORY_BYTES,
        entry_bytes: int = ENTRY_BYTES,
        mac_key: bytes = b"",
        ttl_seconds: float | None = TTL_SECONDS,
        clock: Callable[[], float] = time.time,
        tick_seconds: float = 1.0,
    ) -> Self:
        """A cache that serves at once; what is in the directory is indexed in the background.

        Args:
            directory: None for memory only.
            max_entries: entries in memory and on disk together; 0 stores nothing.
            max_bytes: bytes of all files in the directory together; entries may take up 13/16 of it. Without a
                directory, bytes of the entries.
            memory_bytes: bytes of the entries in memory, prebuilt buffers included.
            entry_bytes: bodies larger than this are not stored.
            mac_key: 32 secret bytes that authenticate the records; empty for a key kept in the directory.
            ttl_seconds: an entry is served for so long after it was stored; None: for ever.
            clock: seconds since the epoch.
            tick_seconds: how often the directory is looked after, and how exactly entries expire.

        Never raises for a directory that cannot be used: see ``degraded``.
        """
        tier = None
        room = max_bytes if directory is None else capacity(max_bytes)
        index = Index(max_entries=max_entries, max_bytes=room, memory_bytes=memory_bytes)
        if directory is not None:
            store = Store(directory, mac_key=mac_key)
            tier = DiskTier(
                index,
                store,
                max_bytes=max_bytes,
                clock=clock,
                ttl_seconds=ttl_seconds,
                tick_seconds=tick_seconds,
            )
            await tier.start()
        return cls(index, tier, entry_bytes=entry_bytes, max_bytes=max_bytes)

    def resize(self, *, max_entries: int, max_bytes: int, ttl_seconds: float | None) -> None:
        """Other limits, as for ``open``; what is too much for them goes, least recently used first."""
        self.max_bytes = max_bytes
        self._index.resize(max_entries, max_bytes if self._tier is None else capacity(max_bytes))
        if self._tier is not None:
            self._tier.shelf.space.resize(max_bytes)
            self._tier.tidier.keep_for(ttl_seconds)

    def relieve(self) -> None:
        """Gives back half of the memory of entries; those that are on disk are served from there."""
        self._index.relieve()

    async def aclose(self) -> None:
        """Writes what is not written yet (5 s at most) and lets go of the directory. Idempotent; what is in memory
        can still be read.
        """
        tier, self._tier = self._tier, None
        if tier is not None:
            await tier.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- facts ---------------------------------------------------------------------------------------------------
    @property
    def degraded(self) -> str | None:
        """Why entries are not stored on disk although they should be; None when all is well."""
        return self._tier.degraded if self._tier else None

    @property
    def disk(self) -> Disk:
        """What the directory is good for at the moment."""
        return self._tier.state if self._tier else Disk.OFF

    @property
    def entries(self) -> int:
        """Entries, in memory and on disk. Too few while the directory is still being indexed (``Disk.SCANNING``)."""
        return len(self._index)

    @property
    def size_bytes(self) -> int:
        """Bytes of their records."""
        return self._index.bytes

    @property
    def max_entries(self) -> int:
        return self._index.max_entries

    def lru_order(self) -> list[str]:
        """The first 15 hexadecimal digits of each digest, least recently used first."""
        return self._index.order()

    def stats(self) -> dict[str, Any]:
        """Numbers for metrics and debugging. Hits in memory are not among them: whoever peeks counts those."""
        tier, memory = self._tier, self._index.memory
        return {
            "entries": self.entries,
            "size_bytes": self.size_bytes,
            "max_entries": self.max_entries,
            "max_bytes": self.max_bytes,
            "memory_entries": len(memory),
            "memory_bytes": memory.bytes,
            "memory_max_bytes": memory.max_bytes,
            "unsaved": len(self._index.volatile),
            "evicted": self._index.evicted,
            "waiting": tier.shelf.waiting if tier else 0,
            "disk_bytes": tier.shelf.space.real + tier.shelf.space.extra if tier else 0,
            "segments": len(tier.shelf.space.segments) if tier else 0,
            "errors": tier.errors if tier else 0,
            "corrupt": tier.corrupt if tier else 0,
            "disk": self.disk.value,
            "degraded": self.degraded,
            **self._counts,
        }

    # --- use -----------------------------------------------------------------------------------------------------
    async def get(self, digest: bytes) -> Entry | None:
        """The entry, from memory or else from disk, whence it moves into memory."""
        entry = self.peek(digest)
        if entry is not None:
            return entry
        if self._tier is not None:
            entry = self._tier.on_its_way(digest)
            if entry is not None:
                self._index.warm(entry)
                return entry
            entry = await self._tier.load(digest)
        self._counts["disk_hits" if entry else "misses"] += 1
        return entry

    def absent(self, digest: bytes) -> bool:
        """True where ``get`` would find nothing, and need not be asked: counts as a miss. Nothing is waited for."""
        unsure = self._tier is not None and self._tier.state in (Disk.SCANNING, Disk.SHARED)
        if unsure or digest in self._index.cold or self.peek(digest) is not None:
            return False
        self._counts["misses"] += 1
        return True

    def put(self, entry: Entry, *, over: float = float("-inf")) -> bool:
        """Stores an entry: in memory at once, on disk soon. In place of an older one for the same question, but never
        one that says how many tokens were used by one that does not (nor one that is only on disk, where that is
        not known).

        Args:
            entry: what to store.
            over: one that was stored before this time, or is only on disk, is replaced whatever it says.

        Returns:
            False when it was not stored.
        """
        if not entry.has_usage and self._might_lose_usage(entry.key, over):
            self._counts["refused"] += 1
            return False
        if len(entry.body) > self._entry_bytes or not self._index.fits(entry):
            self._counts["too_large"] += 1
            return False
        self._counts["stored"] += 1
        request = entry.take_request()
        self._index.add(entry)
        if self._tier is not None:
            self._tier.save(entry, request)
        return True

    def attach(self, entry: Entry, name: str, buffer: bytes) -> None:
        """Keeps a finished response with an entry while it is in memory: ``entry.prebuilt[name]``.

        Nothing happens when the entry has left memory already, or when there is no room for the buffer.
        """
        self._index.cool(self._index.memory.attach(entry, name, buffer))

    async def drop(self, digest: bytes) -> bool:
        """Removes an entry everywhere; False when none was known. Its record is gone on return."""
        if self._tier is not None:
            return await self._tier.drop(digest)
        return self._index.forget(digest, erase=False)

    async def flush(self) -> None:
        """Waits until everything that can be on disk is there, the order of use included."""
        if self._tier is not None:
            await self._tier.flush()

    def _might_lose_usage(self, key: bytes, over: float) -> bool:
        older = self._index.memory.look(key) or (self._tier and self._tier.on_its_way(key))
        if older:
            return older.has_usage and older.stored_at >= over
        return over == float("-inf") and key in self._index.cold
