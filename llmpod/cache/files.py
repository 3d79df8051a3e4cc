"""Not aware of entries or limits: the few file operations that records need, relative to a directory handle.

Nothing here follows a link in the last step of a path. Folders are named by the first two hex digits of the keys
in them, files by the whole key. Functions raise OSError unless they say otherwise.
"""

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from llmpod.cache.entry import KEY_BYTES

KEY_FILE: Final = "key"
TEMPORARY: Final = ".tmp-"
_SHARD: Final = re.compile(r"[0-9a-f]{2}\Z")
_NAME: Final = re.compile(r"[0-9a-f]{64}\Z")
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # never waits for a pipe's writer
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def place(key: bytes) -> str:
    """Where the record of a key lies, relative to the root."""
    name = key.hex()
    return f"{name[:2]}/{name}"


def is_shard(name: str) -> bool:
    """True for the name of one of the 256 folders."""
    return _SHARD.match(name) is not None


def is_ours(name: str) -> bool:
    """True for a name that this cache may have put into the root."""
    return name == KEY_FILE or name.startswith(TEMPORARY) or is_shard(name)


def open_folder(path: str | os.PathLike[str], root: int | None = None) -> int:
    """A handle of a directory that is not a link."""
    return os.open(path, _FOLDER, dir_fd=root)


@contextmanager
def reading(name: str, root: int) -> Iterator[int]:
    """A handle of a file that is not a link."""
    fd = os.open(name, _READ, dir_fd=root)
    try:
        yield fd
    finally:
        os.close(fd)


def fill(name: str, root: int, parts: Iterable[bytes], *, stamp: int) -> None:
    """Makes a new file of these bytes, mode 0600, modification time ``stamp`` (ns)."""
    fd = os.open(name, _CREATE, 0o600, dir_fd=root)
    try:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(fd, view) :]
        os.utime(fd, ns=(stamp, stamp))
    finally:
        os.close(fd)


def move(temporary: str, name: str, root: int) -> None:
    """Puts a finished file in its place at once, making the folder when it is the first one there."""
    try:
        os.rename(temporary, name, src_dir_fd=root, dst_dir_fd=root)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(name[:2], 0o700, dir_fd=root)
        os.rename(temporary, name, src_dir_fd=root, dst_dir_fd=root)


def unlink(name: str, root: int) -> None:
    """Removes a file; one that is not there is as good as removed."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=root)


def lock(fd: int) -> bool:
    """Takes the lock on an open directory; False when another handle holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Gives the lock back while the handle may still be in use."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def shared_key(root: int, *, create: bool) -> bytes | None:
    """The key that is kept in the directory, made when it is missing or damaged; None when it may not be made."""
    with suppress(FileNotFoundError), reading(KEY_FILE, root) as fd:
        key = os.read(fd, KEY_BYTES + 1)
        if len(key) == KEY_BYTES:
            return key
    if not create:
        return None
    key, temporary = secrets.token_bytes(KEY_BYTES), f"{TEMPORARY}{os.getpid()}-key"
    unlink(temporary, root)
    fill(temporary, root, (key,), stamp=0)
    os.rename(temporary, KEY_FILE, src_dir_fd=root, dst_dir_fd=root)
    return key


def records(shard: str, root: int) -> list[tuple[int, bytes, int]]:
    """(time of use in ns, key, size in bytes) of every record in one folder.

    Never raises: half a folder is still worth having, and an unreadable one holds nothing that can be served.
    """
    found: list[tuple[int, bytes, int]] = []
    with suppress(OSError):
        fd = open_folder(shard, root)
        try:
            with os.scandir(fd) as files:
                for file in files:
                    status = file.stat(follow_symlinks=False)
                    if _is_record(file.name, shard, status.st_mode):
                        found.append((status.st_mtime_ns, bytes.fromhex(file.name), status.st_size))
        finally:
            os.close(fd)
    return found


def _is_record(name: str, shard: str, mode: int) -> bool:
    return name.startswith(shard) and _NAME.match(name) is not None and stat.S_ISREG(mode)
