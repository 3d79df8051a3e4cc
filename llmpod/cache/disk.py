"""Not asynchronous, and not the judge of any limit: the directory of records, as plain calls of the system.

``Cache`` runs these calls in threads: one writer, whose batches arrive in order, and a few readers. Plain ``os``
calls instead of aiofiles, because that hops between threads for every open, write and rename where a batch needs
one hop in all, and because it cannot work relative to a directory handle.

Everything happens relative to a handle of the directory, opened without following links and checked once: owner
is us, nobody else may write. Whatever is put in its place later is noticed (``lost``) and never followed.

One process writes (``flock`` on the directory itself: no lock file can be left behind), others may read. A record
appears by ``rename``, so a reader sees all of it or nothing, and goes on reading one that is being removed. Order
of use is kept in the files' modification times, set by us and increasing, so it needs no file of its own.

The MAC's key lies in the directory unless one is handed in: it then stops damage, mix-ups and records copied from
elsewhere, but nobody who can already write here as us. Its presence is also the sign that the contents are still
those we know: ``rm -rf dir`` and ``rm -rf dir/*`` both mean "forget everything".
"""

import os
import stat
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from llmpod.cache import files
from llmpod.cache.entry import Corrupt, Entry, decode, encode
from llmpod.cache.root import Life, Root

_PROBE_BYTES: Final = 4096
_SPARE_BYTES: Final = 65536  # a record may be this much longer than its body


class Unusable(Exception):
    """The directory cannot be used; the message says why, for a person."""


class Write(NamedTuple):
    """Store an entry; ``stamp`` orders uses (ns, increasing)."""

    entry: Entry
    stamp: int


class Remove(NamedTuple):
    """Remove a record."""

    key: bytes


class Touch(NamedTuple):
    """A record was used."""

    key: bytes
    stamp: int


Step = Write | Remove | Touch


@dataclass
class Outcome:
    """What became of a batch.

    Attributes:
        saved: entries written.
        failed: entries not written.
        error: why something failed; empty when nothing did.
        lost: the directory is not the one we knew; nothing of the batch was done.
    """

    saved: list[Entry] = field(default_factory=list)
    failed: list[Entry] = field(default_factory=list)
    error: str = ""
    lost: bool = False


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__


class Store:
    """The records in one directory.

    Args:
        directory: made with mode 0700 when it is not there.
        entry_limit: bytes of body above which a file cannot be ours.
        mac_key: 32 secret bytes; empty for a key that is kept in the directory.
    """

    def __init__(self, directory: Path, *, entry_limit: int, mac_key: bytes = b"") -> None:
        self.directory = directory.absolute()
        self.stopping = False  # set from any thread: a scan ends early
        self._file_limit = entry_limit + _SPARE_BYTES
        self._mac_key = mac_key
        self._root: Root | None = None
        self._life: Life | None = None
        self.replaced = False  # the last opening found another directory than the one before
        self._count = 0

    # --- open and close ------------------------------------------------------------------------------------------
    def open(self) -> bool:
        """(Re)opens the directory. False: another process writes here, we may only read.

        Raises:
            Unusable: with the reason.
        """
        self._unlock()  # readers go on with the old handle until there is a new one
        try:
            self._root = self._opened()
        except Unusable:
            self._root = None
            raise
        self.replaced = self._life not in (None, self._root.life)
        self._life = self._root.life
        return self._root.owner

    def _opened(self) -> Root:
        try:
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self.directory.mkdir(mode=0o700)
            fd = files.open_folder(self.directory)
        except OSError as error:
            raise Unusable(f"{self.directory} cannot be opened as a directory: {_why(error)}") from None
        try:
            return self._enter(fd)
        except (OSError, Unusable) as error:
            os.close(fd)
            reason = _why(error) if isinstance(error, OSError) else str(error)
            raise Unusable(f"{self.directory} cannot be used: {reason}") from None

    def _enter(self, fd: int) -> Root:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise Unusable(f"it belongs to user {status.st_uid}, not to us")
        if status.st_mode & 0o077:
            if all(map(files.is_ours, os.listdir(fd))):
                os.fchmod(fd, 0o700)
            elif status.st_mode & 0o022:
                raise Unusable("others may write to it, and it holds files that are not ours")
        owner = files.lock(fd)
        mac_key = self._mac_key or files.shared_key(fd, create=owner)
        if mac_key is None:
            raise Unusable("another process is setting it up")
        return Root(fd, mac_key, owner=owner)

    def close(self) -> None:
        """Lets go of the directory and its lock; readers that are in it finish undisturbed."""
        self._unlock()
        self._root = None

    def _unlock(self) -> None:
        """A handle lives until its last reader has finished; the lock must not live as long."""
        if self._root is not None and self._root.owner:
            with suppress(OSError):  # closing the handle will do it too, only later
                files.unlock(self._root.fd)

    def lost(self) -> bool:
        """True when the directory that we opened is no longer there, or was emptied."""
        root = self._root
        if root is None:
            return True
        try:
            now = self.directory.lstat()
            if not self._mac_key:
                os.stat(files.KEY_FILE, dir_fd=root.fd, follow_symlinks=False)
        except OSError:
            return True
        return (now.st_dev, now.st_ino) != root.identity

    # --- read ----------------------------------------------------------------------------------------------------
    def read(self, key: bytes) -> Entry | None:
        """The entry, or None when there is no record. Safe in any thread.

        Raises:
            Corrupt: there is one, and it is not what was stored.
        """
        root = self._root
        if root is None:
            return None
        try:
            with files.reading(files.place(key), root.fd) as fd:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode) or status.st_size > self._file_limit:
                    raise Corrupt("it is no file of ours")
                with os.fdopen(fd, "rb", closefd=False) as file:
                    record = file.read(self._file_limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Corrupt(f"it cannot be read: {_why(error)}") from None
        return decode(record, key, root.mac_key)

    def scan(self, *, max_entries: int, max_bytes: int) -> tuple[OrderedDict[bytes, int], int]:
        """Size of each record by key, least recently used first, and their sum.

        Removes what a killed writer left behind, and the oldest records over the limits.

        Raises:
            Unusable: with the reason.
        """
        root = self._root
        if root is None:
            raise Unusable(f"{self.directory} is not open")
        try:
            found = self._records(root)
            total = sum(size for _, _, size in found)
            while len(found) > max_entries or total > max_bytes:
                _, key, size = found.pop()
                files.unlink(files.place(key), root.fd)
                total -= size
        except OSError as error:
            raise Unusable(f"{self.directory} cannot be tidied: {_why(error)}") from None
        return OrderedDict((key, size) for _, key, size in reversed(found)), total

    def _records(self, root: Root) -> list[tuple[int, bytes, int]]:
        """(time of use, key, size) of each record, the latest first."""
        found: list[tuple[int, bytes, int]] = []
        for name in os.listdir(root.fd):  # noqa: PTH208 - by handle, not by path
            if self.stopping:
                break
            if name.startswith(files.TEMPORARY):
                files.unlink(name, root.fd)
            elif files.is_shard(name):
                found += files.records(name, root.fd)
        return sorted(found, reverse=True)

    # --- write ---------------------------------------------------------------------------------------------------
    def probe(self) -> None:
        """Proves that the directory can be written, with a small file. Raises Unusable."""
        root, name = self._root, self._temporary()
        if root is None:
            raise Unusable(f"{self.directory} is not open")
        try:
            files.fill(name, root.fd, (bytes(_PROBE_BYTES),), stamp=0)
        except OSError as error:
            raise Unusable(f"{self.directory} cannot be written: {_why(error)}") from None
        finally:
            with suppress(OSError):  # on a file system that is read-only now there is nothing to remove
                files.unlink(name, root.fd)

    def apply(self, batch: Iterable[Step]) -> Outcome:
        """Does a batch in order. After a write that failed, the other writes of the batch are not tried."""
        outcome, root = Outcome(), self._root
        if root is None or self.lost():
            outcome.lost = True
            return outcome
        for step in batch:
            try:
                self._do(root, step, outcome)
            except FileNotFoundError:
                pass  # removed by a person or by an earlier step: as good as done
            except OSError as error:
                outcome.error = f"{self.directory} cannot be written: {_why(error)}"
        return outcome

    def _do(self, root: Root, step: Step, outcome: Outcome) -> None:
        match step:
            case Write(entry) if outcome.error:
                outcome.failed.append(entry)
            case Write():
                self._write(root, step, outcome)
            case Remove(key):
                os.unlink(files.place(key), dir_fd=root.fd)
            case Touch(key, stamp):
                os.utime(files.place(key), ns=(stamp, stamp), dir_fd=root.fd)

    def _write(self, root: Root, step: Write, outcome: Outcome) -> None:
        entry, name, temporary = step.entry, files.place(step.entry.key), self._temporary()
        try:
            files.unlink(name, root.fd)  # before, not after: at no moment do both count against the limit
            files.fill(temporary, root.fd, encode(entry, root.mac_key), stamp=step.stamp)
            files.move(temporary, name, root.fd)
        except OSError:
            outcome.failed.append(entry)
            with suppress(OSError):
                files.unlink(temporary, root.fd)
            raise
        outcome.saved.append(entry)

    def _temporary(self) -> str:
        self._count += 1
        return f"{files.TEMPORARY}{os.getpid()}-{self._count}"
