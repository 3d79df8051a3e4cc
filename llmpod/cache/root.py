"""Not the store: one opened cache directory, and what tells it from another one of the same name."""

import os
from contextlib import suppress
from pathlib import Path

from llmpod.cache import files
from llmpod.cache.entry import Signer

Life = tuple[int, int, bytes]


class Unusable(Exception):
    """The directory cannot be used; the message says why, for a person."""


class Root:
    """An open handle of the directory. Closed with its last user: a reader in a thread may outlast the store."""

    def __init__(self, fd: int, mac_key: bytes, *, owner: bool) -> None:
        status = os.fstat(fd)
        self.identity = (status.st_dev, status.st_ino)
        self.signer = Signer(mac_key)
        self.life: Life = (
            *self.identity,
            mac_key,
        )  # a directory made anew may have the old inode, not the old key
        self.owner = owner
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


def why(error: OSError) -> str:
    """The reason, without the path that the caller knows better."""
    return error.strerror or type(error).__name__


def open_root(directory: Path, mac_key: bytes = b"") -> Root:
    """Opens the directory, making it when it is not there, and takes its lock when nobody has it.

    Raises:
        Unusable: with the reason.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
    except OSError as error:
        raise Unusable(f"{directory} cannot be opened as a directory: {why(error)}") from None
    return _opened(directory, mac_key, lock=True)


def look_into(directory: Path, mac_key: bytes = b"") -> Root:
    """Opens an existing directory without taking its lock: whoever uses it is not disturbed.

    Raises:
        Unusable: with the reason.
    """
    return _opened(directory, mac_key, lock=False)


def _opened(directory: Path, mac_key: bytes, *, lock: bool) -> Root:
    try:
        fd = files.open_folder(directory)
    except OSError as error:
        raise Unusable(f"{directory} cannot be opened as a directory: {why(error)}") from None
    try:
        return _enter(fd, mac_key, lock=lock)
    except (OSError, Unusable) as error:
        os.close(fd)
        reason = why(error) if isinstance(error, OSError) else str(error)
        raise Unusable(f"{directory} cannot be used: {reason}") from None


def _enter(fd: int, mac_key: bytes, *, lock: bool) -> Root:
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        raise Unusable(f"it belongs to user {status.st_uid}, not to us")
    if status.st_mode & 0o077 and lock:
        _make_private(fd, status.st_mode)
    owner = lock and files.lock(fd)
    key = mac_key or files.shared_key(fd, create=owner)
    if key is None:
        raise Unusable("another process is setting it up" if lock else "there is no cache in it")
    return Root(fd, key, owner=owner)


def _make_private(fd: int, mode: int) -> None:
    if all(map(files.is_ours, os.listdir(fd))):
        os.fchmod(fd, 0o700)
    elif mode & 0o022:
        raise Unusable("others may write to it, and it holds files that are not ours")
