"""Not read any more: what versions before 0.2 kept, one file for each entry in 256 folders. Removed in small steps."""

import os
import re
import stat
from contextlib import suppress
from typing import Final

_FOLDER: Final = re.compile(r"[0-9a-f]{2}\Z")
_FILE: Final = re.compile(r"[0-9a-f]{64}\Z")
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP: Final = 256


def is_folder(name: str) -> bool:
    """True for the name of one of the 256 folders."""
    return _FOLDER.match(name) is not None


def folders(root: int) -> list[str]:
    """What may be such folders, in an open directory. Raises OSError."""
    return [name for name in os.listdir(root) if is_folder(name)]


def sweep(folder: str, root: int) -> bool:
    """Removes up to 256 entries of one folder, and then the folder; whatever else lies there stays.

    Returns:
        True when there is more to remove in it. Never raises: what cannot be removed is not ours to worry about.
    """
    with suppress(OSError):
        fd = os.open(folder, _OPEN, dir_fd=root)
        try:
            removed = _remove_some(folder, fd)
        finally:
            os.close(fd)
        if removed == _STEP:
            return True
        os.rmdir(folder, dir_fd=root)
    return False


def _remove_some(folder: str, fd: int) -> int:
    removed = 0
    with os.scandir(fd) as files:
        for file in files:
            mode = file.stat(follow_symlinks=False).st_mode
            if file.name.startswith(folder) and _FILE.match(file.name) and stat.S_ISREG(mode):
                os.unlink(file.name, dir_fd=fd)
                removed += 1
                if removed == _STEP:
                    break
    return removed
