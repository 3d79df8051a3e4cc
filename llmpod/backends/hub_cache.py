"""Not the hub: the directory in which Hugging Face's libraries keep models, written as they write and read it.

    models--org--name/blobs/DIGEST            the bytes, named by their digest; DIGEST.incomplete while they come
    models--org--name/snapshots/COMMIT/NAME   links to those
    models--org--name/refs/main               the commit of a branch
    .locks/models--org--name/DIGEST.lock      flock: who fetches these bytes now

Source: huggingface_hub's documentation ("Understand caching"); the result is read by huggingface_hub 1.x itself
(docs/decisions/016). A server that starts meanwhile takes the same locks, so nothing is fetched twice.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Self

from llmpod.backends.hub_files import RepoFile, Snapshot
from llmpod.errors import Busy

_LOCK_POLL_SECONDS = 0.2
_PIECE = 2**20


class HubCache:
    """One model's part of the cache.

    Args:
        directory: the cache, ``~/.cache/huggingface/hub`` as a rule.
        repo_id: ``org/name``.
    """

    def __init__(self, directory: Path, repo_id: str) -> None:
        folder = "--".join(("models", *repo_id.split("/")))
        self._home = directory / folder
        self._locks = directory / ".locks" / folder
        self._directory = directory

    def has(self, file: RepoFile) -> bool:
        """Whether its bytes are there; they were checked when they came."""
        blob = self._blob(file)
        return blob.is_file() and blob.stat().st_size == file.size

    def incomplete_bytes(self, file: RepoFile) -> int:
        """How much of it an earlier attempt has left."""
        with suppress(OSError):
            return min(self._incomplete(file).stat().st_size, file.size)
        return 0

    def free_bytes(self) -> int:
        """What still fits onto the disk that the cache is, or will be, on. Raises OSError."""
        place = next(path for path in (self._home, *self._home.parents) if path.exists())
        return shutil.disk_usage(place).free

    @contextmanager
    def locked(self, file: RepoFile, stop: Event) -> Iterator[None]:
        """Only one program at a time fetches a file.

        Raises:
            Busy: ``stop`` was set while another program was at it.
            OSError: the disk refuses.
        """
        self._locks.mkdir(parents=True, exist_ok=True)
        with (self._locks / f"{file.digest}.lock").open("a") as lock:
            while not _locked(lock.fileno()):
                if stop.wait(_LOCK_POLL_SECONDS):
                    raise Busy(f"Another program fetches {file.name} now.")
            yield

    def incomplete(self, file: RepoFile) -> "Incomplete":
        """What has come of it. Raises OSError."""
        path = self._incomplete(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return Incomplete(path, file)

    def keep(self, file: RepoFile) -> None:
        """Its bytes have come, and are right. Raises OSError."""
        self._incomplete(file).replace(self._blob(file))

    def blobs(self) -> list[Path]:
        """Whatever of it is there, of any commit."""
        return sorted(path for path in (self._home / "blobs").glob("*") if path.is_file())

    def place(self, whole: Snapshot) -> Path:
        """Where a commit's files stand under their names."""
        return self._home / "snapshots" / whole.commit

    def link(self, whole: Snapshot, file: RepoFile) -> None:
        """Let it be found by its name. Raises OSError."""
        path = self.place(whole) / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        temporary.symlink_to(os.path.relpath(self._blob(file), path.parent))
        temporary.replace(path)

    def refer(self, whole: Snapshot, revision: str) -> None:
        """Let a branch or tag mean this commit. Raises OSError."""
        if revision == whole.commit or {"", "..", "."} & {*revision.split("/")}:  # git knows no such names
            return
        path = self._home / "refs" / revision
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(whole.commit, encoding="utf-8")

    def _blob(self, file: RepoFile) -> Path:
        return self._home / "blobs" / file.digest

    def _incomplete(self, file: RepoFile) -> Path:
        return self._home / "blobs" / f"{file.digest}.incomplete"


class Incomplete:
    """What has come of a file, on the disk, and the digest of that.

    Args:
        path: where; what an earlier attempt left there counts.
        file: what it is to become.
    """

    def __init__(self, path: Path, file: RepoFile) -> None:
        self._file = file
        self._path = path
        self.size = 0

    def __enter__(self) -> Self:
        self._out = self._path.open("a+b", buffering=0)
        self._hash = self._new_hash()
        self._out.seek(0)
        while piece := self._out.read(_PIECE):
            self._hash.update(piece)
            self.size += len(piece)
        if self.size > self._file.size:
            self.restart()
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()

    @property
    def is_whole(self) -> bool:
        return self.size == self._file.size

    def write(self, piece: bytes) -> None:
        """Append. Raises OSError."""
        self._out.write(piece)
        self._hash.update(piece)
        self.size += len(piece)

    def restart(self) -> None:
        """Forget what has come."""
        self._out.truncate(0)
        self._hash, self.size = self._new_hash(), 0

    def flush(self) -> None:
        """Let it outlive a loss of power. Raises OSError."""
        os.fsync(self._out.fileno())

    def is_right(self) -> bool:
        """Whether it is the file, to the bit, and nobody else has written to it (over NFS a lock may hold nobody)."""
        if os.fstat(self._out.fileno()).st_size != self._file.size:
            return False
        return self._hash.hexdigest() == self._file.digest  # no secret: the hub tells everybody

    def _new_hash(self) -> "hashlib._Hash":
        if len(self._file.digest) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self._file.size, usedforsecurity=False)  # as git names a blob


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
