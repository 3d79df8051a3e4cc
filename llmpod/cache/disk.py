"""Not asynchronous, and not the judge of any limit: the directory of segments, as plain calls of the system.

``Cache`` runs these calls in threads: one writer, whose batches arrive in order, and a few readers. Plain ``os``
calls instead of aiofiles, because that hops between threads for every open and write where a batch needs one hop in
all, and because it cannot work relative to a directory handle.

Everything happens relative to a handle of the directory, opened without following links and checked once: owner
is us, nobody else may write. Whatever is put in its place later is noticed (``lost``) and never followed.

One process writes (``flock`` on the directory itself: no lock file can be left behind), others may read. Segments
grow at their end only; a process never adds to one that it did not begin, so what a killed one left half written
stays at the end of its segment, where it is found to be no record.

The MAC's key lies in the directory unless one is handed in: it then stops damage, mix-ups and records copied from
elsewhere, but nobody who can already write here as us. Its presence is also the sign that the contents are still
those we know: ``rm -rf dir`` and ``rm -rf dir/*`` both mean "forget everything".
"""

import errno
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from llmpod.cache import files, legacy, notices, snapshot
from llmpod.cache.entry import HEAD_BYTES, Corrupt, Entry, Signer, decode, encode, erased
from llmpod.cache.notices import Notice
from llmpod.cache.replay import Replay
from llmpod.cache.root import Life, Root, Unusable, open_root, why
from llmpod.cache.steps import Append, Erase, Outcome, Snap, Spot, Step, Unlink
from llmpod.cache.walk import Frame, Walk, frame_at

KEEP_FREE: Final = 0.05  # share of the disk that is left to others
_PROBE_BYTES: Final = 16  # a new file takes a block of the disk, however short it is


class Store:
    """The segments in one directory.

    Args:
        directory: made with mode 0700 when it is not there.
        mac_key: 32 secret bytes; empty for a key that is kept in the directory.
        keep_free: nothing is stored while less than this share of the disk is free.

    Attributes:
        replaced: the last opening found another directory than the one before.
    """

    def __init__(self, directory: Path, *, mac_key: bytes = b"", keep_free: float = KEEP_FREE) -> None:
        self.directory = directory.absolute()
        self.replaced = False
        self._mac_key = mac_key
        self._keep_free = keep_free
        self._root: Root | None = None
        self._life: Life | None = None
        self._stopping = False
        self._replay: Replay | None = None
        self._growing: tuple[int, int, int] | None = None  # number, handle and size of the segment that grows

    # --- open and close ------------------------------------------------------------------------------------------
    def open(self) -> bool:
        """(Re)opens the directory. False: another process writes here, we may only read.

        Raises:
            Unusable: with the reason.
        """
        self._unlock()  # readers go on with the old handle until there is a new one
        self._seal()
        try:
            self._root = open_root(self.directory, self._mac_key)
        except Unusable:
            self._root = None
            raise
        self.replaced = self._life not in (None, self._root.life)
        self._life = self._root.life
        return self._root.owner

    def close(self) -> None:
        """Lets go of the directory and its lock; readers that are in it finish undisturbed."""
        self._seal()
        self._unlock()
        self._root = self._replay = None

    def stop(self) -> None:
        """Ends a scan early. To be called from any thread."""
        self._stopping = True
        if self._replay is not None:
            self._replay.stopping = True

    def _unlock(self) -> None:
        """A handle lives until its last reader has finished; the lock must not live as long."""
        if self._root is not None and self._root.owner:
            with suppress(OSError):  # closing the handle will do it too, only later
                files.unlock(self._root.fd)

    def lost(self) -> bool:
        """True when the directory that we opened is no longer there, or was emptied.

        Raises:
            Unusable: it is closed to us, and may be there; nothing is forgotten for that (F42).
        """
        root = self._root
        if root is None:
            return True
        try:
            now = self.directory.lstat()
            if not self._mac_key:
                os.stat(files.KEY_FILE, dir_fd=root.fd, follow_symlinks=False)
        except PermissionError as error:
            raise Unusable(f"{self.directory} cannot be used: {why(error)}") from None
        except OSError:
            return True
        return (now.st_dev, now.st_ino) != root.identity

    # --- read ----------------------------------------------------------------------------------------------------
    def read(self, place: Spot) -> Entry | None:
        """The entry in this place, or None when its segment is not there any more. Safe in any thread.

        Raises:
            Corrupt: what is there is not what was stored.
        """
        root = self._root
        if root is None:
            return None
        try:
            with files.reading(files.segment_name(place.number), root.fd) as fd:
                record = os.pread(fd, place.length, place.offset)
        except (FileNotFoundError, PermissionError):  # closed to us now; no record is damaged by that
            return None
        except OSError as error:
            raise Corrupt(f"it cannot be read: {why(error)}") from None
        return decode(record, place.key, root.signer)

    @property
    def signer(self) -> Signer | None:
        """Makes the MACs of this directory; None while it is not open."""
        return self._root.signer if self._root is not None else None

    def encode(self, entry: Entry, request: bytes) -> bytes | None:
        """The record of an entry, its request compressed. Safe in any thread."""
        signer = self.signer
        return encode(entry, request, signer, pack=True) if signer is not None else None

    def records(self, number: int, start: int, budget: int) -> tuple[list[tuple[Frame, bytes]], int | None]:
        """Some records of a segment, about ``budget`` bytes of them, and where to go on; None: that was all.

        Never raises: what cannot be read is not there. Safe in any thread.
        """
        root, found = self._root, list[tuple[Frame, bytes]]()
        if root is None:
            return found, None
        with suppress(OSError), files.reading(files.segment_name(number), root.fd) as fd:
            walk = Walk(fd, start, os.fstat(fd).st_size)
            for frame in walk:
                found.append((frame, os.pread(fd, frame.length, frame.offset)))
                budget -= frame.length
                if budget <= 0:
                    return found, walk.position
        return found, None

    def probe(self) -> None:
        """Proves that the directory can be written, with a small file. Raises Unusable."""
        root, name = self._root, f"{files.TEMPORARY}{os.getpid()}-probe"
        if root is None:
            raise Unusable(f"{self.directory} is not open")
        try:
            self._check_free(root)
            files.unlink(name, root.fd)
            files.fill(name, root.fd, [bytes(_PROBE_BYTES)])
        except OSError as error:
            raise Unusable(f"{self.directory} cannot be written: {why(error)}") from None
        finally:
            with suppress(OSError):  # on a file system that is read-only now there is nothing to remove
                files.unlink(name, root.fd)

    def scan(self) -> Replay:
        """The books of the directory. Where it is ours, removes what a killed writer or an older version left.

        Raises:
            Unusable: with the reason.
        """
        root = self._root
        if root is None:
            raise Unusable(f"{self.directory} is not open")
        self._replay = replay = Replay(root)
        replay.stopping = self._stopping
        try:
            if root.owner:
                self._tidy_up(root)
            replay.run()
        except OSError as error:
            raise Unusable(f"{self.directory} cannot be read: {why(error)}") from None
        return replay

    def notices(self) -> list[Notice]:
        """What others ask to be forgotten. Never raises. Safe in any thread."""
        root = self._root
        return notices.pending(root, time.time()) if root is not None else []

    def acknowledge(self, notice: Notice, known: int) -> None:
        """Says that it was done. On a disk that cannot be written it is done again until that can be said."""
        if self._root is not None:
            with suppress(OSError):
                notices.answer(self._root, notice, known)

    def _tidy_up(self, root: Root) -> None:
        for name in files.leftovers(root.fd):
            files.unlink(name, root.fd)
        for folder in legacy.folders(root.fd):
            while legacy.sweep(folder, root.fd) and not self._stopping:
                pass

    # --- write ---------------------------------------------------------------------------------------------------
    def apply(self, batch: Iterable[Step]) -> Outcome:
        """Does a batch in order. What goes wrong is told, and the rest is tried all the same."""
        outcome, root = Outcome(), self._root
        try:
            outcome.lost = self.lost()
        except Unusable as error:
            outcome.error = str(error)
            outcome.failed += [placed for step in batch if isinstance(step, Append) for placed in step.placed]
        if root is None or outcome.lost or outcome.error:
            return outcome
        for step in batch:
            try:
                self._do(root, step, outcome)
            except FileNotFoundError:
                pass  # removed by a person or by an earlier step: as good as done
            except OSError as error:
                outcome.error = f"{self.directory} cannot be written: {why(error)}"
        return outcome

    def _do(self, root: Root, step: Step, outcome: Outcome) -> None:
        match step:
            case Append():
                try:
                    self._append(root, step)
                except OSError:
                    outcome.failed += step.placed
                    self._undo()
                    raise
                step.done = outcome.wrote = True
            case Erase(spot):
                self._erase(root, spot)
            case Unlink(number):
                if self._growing and self._growing[0] == number:
                    self._seal()
                os.unlink(files.segment_name(number), dir_fd=root.fd)
            case Snap(None):
                files.unlink(files.SNAPSHOT, root.fd)
            case Snap(books) if books is not None and not outcome.error:
                snapshot.write(books, root.fd, root.signer)

    def _append(self, root: Root, step: Append) -> None:
        self._check_free(root)
        if step.offset == 0:
            self._seal()
            self._growing = step.number, files.create(files.segment_name(step.number), root.fd), 0
        if self._growing is None or (self._growing[0], self._growing[2]) != (step.number, step.offset):
            raise OSError(errno.EIO, "what went before could not be written")
        number, fd, size = self._growing
        files.write(fd, step.parts)
        self._growing = number, fd, size + step.bytes

    def _undo(self) -> None:
        """A segment that could not be written to ends with its last good record, for good."""
        if self._growing is not None:
            _, fd, size = self._growing
            with suppress(OSError):
                os.ftruncate(fd, size)
            self._seal()

    def _seal(self) -> None:
        if self._growing is not None:
            os.close(self._growing[1])
            self._growing = None

    def _erase(self, root: Root, spot: Spot) -> None:
        name = files.segment_name(spot.number)
        with files.reading(name, root.fd) as fd:
            record = os.pread(fd, spot.length, spot.offset)
        frame = frame_at(record, 0, spot.offset) if len(record) >= HEAD_BYTES else None
        if frame is not None and (frame.key, frame.length) == (spot.key, spot.length):
            files.overwrite(name, root.fd, erased(record), spot.offset)

    def _check_free(self, root: Root) -> None:
        if files.free_share(root.fd) < self._keep_free:
            raise OSError(errno.ENOSPC, f"less than {self._keep_free:.0%} of the disk is free")
