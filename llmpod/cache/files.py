"""Not aware of entries or limits: the few file operations that segments need, relative to a directory handle.

Nothing here follows a link in the last step of a path. Functions raise OSError unless they say otherwise.
"""

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from llmpod.cache import legacy
from llmpod.cache.entry import KEY_BYTES

KEY_FILE: Final = "key"
SNAPSHOT: Final = "index"
SEGMENT: Final = ".seg"
TEMPORARY: Final = ".tmp-"
_PREFIXES: Final = (TEMPORARY, "purge-", "purged-")  # the latter are those of ``notices.py``
_PARTS: Final = 512  # a call of the system takes 1024 at most
_SEGMENT: Final = re.compile(r"[0-9a-f]{12}\.seg\Z")
_WRITE: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # never waits for a pipe's writer
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def segment_name(number: int) -> str:
    """The file of a segment."""
    return f"{number:012x}{SEGMENT}"


def segment_number(name: str) -> int | None:
    """The number in the name of a segment's file; None for any other name."""
    return int(name[:12], 16) if _SEGMENT.match(name) else None


def is_ours(name: str) -> bool:
    """True for a name that this cache, or its older form, may have put into the root."""
    ours = name in (KEY_FILE, SNAPSHOT) or name.startswith(_PREFIXES) or _SEGMENT.match(name)
    return bool(ours) or legacy.is_folder(name)


def open_folder(path: str | os.PathLike[str], root: int | None = None) -> int:
    """A handle of a directory that is not a link."""
    return os.open(path, _FOLDER, dir_fd=root)


@contextmanager
def reading(name: str, root: int) -> Iterator[int]:
    """A handle of a regular file that is not a link."""
    fd = os.open(name, _READ, dir_fd=root)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FileNotFoundError(errno.ENOENT, "it is no file")
        yield fd
    finally:
        os.close(fd)


def create(name: str, root: int) -> int:
    """A handle of a new file, mode 0600, for writing at its end."""
    return os.open(name, _CREATE, 0o600, dir_fd=root)


def write(fd: int, parts: Sequence[bytes]) -> None:
    """Writes all of it: one call of the system for up to 512 parts."""
    for first in range(0, len(parts), _PARTS):
        some = parts[first : first + _PARTS]
        written = os.writev(fd, some)
        if written < sum(map(len, some)):  # a signal or a full disk: the rest tells which
            rest = memoryview(b"".join(some))[written:]
            while rest:
                rest = rest[os.write(fd, rest) :]


def fill(name: str, root: int, parts: Sequence[bytes]) -> None:
    """Makes a new file of these bytes."""
    fd = create(name, root)
    try:
        write(fd, parts)
    finally:
        os.close(fd)


def replace(name: str, root: int, parts: Sequence[bytes]) -> None:
    """Makes or replaces a file at once: whoever looks sees all of the old or all of the new one."""
    temporary = f"{TEMPORARY}{os.getpid()}-{name}"
    unlink(temporary, root)
    try:
        fill(temporary, root, parts)
        os.rename(temporary, name, src_dir_fd=root, dst_dir_fd=root)
    except OSError:
        with suppress(OSError):
            unlink(temporary, root)
        raise


def overwrite(name: str, root: int, data: bytes, offset: int) -> None:
    """Replaces bytes of an existing file."""
    fd = os.open(name, _WRITE, dir_fd=root)
    try:
        os.pwrite(fd, data, offset)
    finally:
        os.close(fd)


def free_share(root: int) -> float:
    """How much of the file system is free for us, between 0 and 1."""
    status = os.fstatvfs(root)
    return status.f_bavail / status.f_blocks if status.f_blocks else 1.0


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
    try:
        with reading(KEY_FILE, root) as fd:
            key = os.read(fd, KEY_BYTES + 1)
        if len(key) == KEY_BYTES:
            return key
    except OSError as error:
        if error.errno not in (
            errno.ENOENT,
            errno.ELOOP,
        ):  # a link is never followed: no key, and in its place
            raise
    if not create:
        return None
    key = secrets.token_bytes(KEY_BYTES)
    replace(KEY_FILE, root, [key])
    return key


def segments(root: int) -> dict[int, int]:
    """Size in bytes of each segment by its number."""
    found = {}
    with os.scandir(root) as files:
        for file in files:
            number = segment_number(file.name)
            if number is not None:
                status = file.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found[number] = status.st_size
    return dict(sorted(found.items()))


def leftovers(root: int) -> list[str]:
    """What a killed writer left behind."""
    return beginning(root, (TEMPORARY,))


def beginning(root: int, prefixes: tuple[str, ...]) -> list[str]:
    """The names that begin so, in their order."""
    return sorted(name for name in os.listdir(root) if name.startswith(prefixes))
