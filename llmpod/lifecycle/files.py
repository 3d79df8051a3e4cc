"""Not aware of what the files mean: durable atomic writes, kernel locks, process identity.

Durability was measured for this project: a killed writer that opens with ``w`` leaves an empty or torn file
almost every time; temporary file + fsync + rename + fsync of the directory never did.
"""

import errno
import fcntl
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from llmpod.errors import Busy, StateError
from llmpod.identity import boot_id, process_id


def private_dir(path: Path) -> Path:
    """Make ``path`` a directory of ours that nobody else may enter.

    Raises:
        StateError: it cannot be made, is a symlink, or belongs to somebody else.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
            raise StateError(f"{path} is not a directory of this user.", hint="Move it away and try again.")
        if info.st_mode & 0o077:
            path.chmod(0o700)
    except OSError as e:
        raise StateError(f"Cannot use the directory {path}: {e.strerror}.") from None
    return path


def write_atomic(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace ``path`` so that a reader or a crash sees the old text or the new one, never a part. Mode 0600.

    Args:
        path: the file.
        text: its new content.
        durable: also survive a power cut (two fsyncs, about 1 ms).

    Raises:
        StateError: disk full, no permission, I/O error; the old content stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            _sync_directory(path.parent)
    except OSError as e:
        temporary.unlink(missing_ok=True)
        raise StateError(f"Cannot write {path}: {e.strerror}.", hint="Nothing was changed.") from None


def sweep_temporaries(directory: Path, name: str = "") -> None:
    """Remove what writers of ``write_atomic`` left that were killed between their two steps.

    Args:
        directory: where.
        name: of the file that was to be written; empty: of any.
    """
    pattern = re.compile(rf"\.{re.escape(name) or '.+'}\.(\d+)\.[0-9a-f]{{8}}")
    with suppress(OSError):
        for path in directory.iterdir():
            found = pattern.fullmatch(path.name)
            if found and process_id(int(found[1])) is None:
                path.unlink()


def append(path: Path, data: bytes) -> None:
    """Add whole lines to a private file, durable before this returns; the file is made where there is none.

    What a crash has torn at its end is closed by a line end first, so that it swallows nothing that follows.

    Raises:
        OSError: the disk refuses; a part of ``data`` may stand there, as after a crash.
        StateError: the file cannot be made.
    """
    if not path.exists():
        create_once(path, str)  # the name in its directory survives a power cut, too
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in ``path``, or None where there is no file.

    Raises:
        StateError: unreadable or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as e:
        raise StateError(f"Cannot read {path}: {e}.") from None
    if not isinstance(value, dict):
        raise StateError(f"{path} does not hold a JSON object.")
    return value


def create_once(path: Path, make: Callable[[], str]) -> str:
    """The text of ``path``; the first caller's ``make()`` decides it, also when several start at once."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        write_atomic(temporary, make())
        try:
            os.link(temporary, path)
            _sync_directory(path.parent)
        except FileExistsError:
            pass
        finally:
            temporary.unlink(missing_ok=True)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise StateError(f"Cannot read {path}: {e}.") from None


@contextmanager
def locked(
    path: Path,
    *,
    wait_seconds: float = 0.0,
    fleeting: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Hold the kernel's lock on ``path`` (flock): it ends with the process, however that ends.

    What stands in the file is for messages only; a dead owner never blocks.

    Args:
        path: the lock file, in a directory of ours.
        wait_seconds: how long to wait for another owner; 0 does not wait.
        fleeting: remove the file at the end; all who lock it must say so, and none gets the lock of a removed one.
        clock: monotonic seconds.

    Raises:
        Busy: somebody else holds it.
    """
    until = clock() + wait_seconds
    fd = _held(path, until=until, clock=clock)
    while fleeting and not _is_at(fd, path):
        os.close(fd)
        fd = _held(path, until=until, clock=clock)
    try:
        with suppress(OSError):  # who holds it is for messages only; a full disk must not stop a termination
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        if fleeting:
            path.unlink(missing_ok=True)
        os.close(fd)


def _held(path: Path, *, until: float, clock: Callable[[], float]) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise StateError(f"Cannot open {path}: {e.strerror}.") from None
    try:
        _take(fd, until=until, clock=clock)
    except BaseException:  # whatever it is: it goes on, without the file
        os.close(fd)
        raise
    return fd


def _is_at(fd: int, path: Path) -> bool:
    """Whether an open file is still what the path names."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), path.stat())
    return False


def _take(fd: int, *, until: float, clock: Callable[[], float]) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if clock() >= until:
                owner = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "?"
                raise Busy(f"Another pass is at work (pid {owner}).") from None
            time.sleep(0.05)


def uptime() -> tuple[str, float] | None:
    """This boot and for how many seconds it has lasted, sleep included (clock_gettime(2), CLOCK_BOOTTIME).

    Nobody can set that clock, so it tells a machine that slept from one whose time of day was changed. None where
    there is no such clock (macOS).
    """
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return None if clock is None else (boot_id(), time.clock_gettime(clock))
