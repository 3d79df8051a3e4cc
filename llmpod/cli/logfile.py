"""Not logging: sends what this process prints into a file that cannot grow without bound, as cron needs it.

A shell's ``>>`` would do the same, but it has no bound, and where the file cannot be opened the shell does not run
the command at all: a full or read-only disk must not keep the watchdog from ending a pod.
"""

import os
import sys
from pathlib import Path

MAX_BYTES = 2**20


def divert(path: Path) -> bool:
    """Append standard output and error to ``path``, from now on and for this whole process.

    A file above 1 MiB is kept as ``<name>.1`` in the place of the one before, and a new one is begun.

    Returns:
        False when the file cannot be used; that was said on standard error, and everything goes on.
    """
    try:
        fd = _opened(path)
    except OSError as e:
        print(f"{path} cannot be written ({e.strerror}); going on without it.", file=sys.stderr)
        return False
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    return True


def _opened(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = _open(path)
    if os.fstat(fd).st_size <= MAX_BYTES:
        return fd
    # another process that came here at the same time has already made the new file: that one is kept
    if os.path.samestat(os.fstat(fd), path.stat()):
        path.replace(path.with_name(path.name + ".1"))
    os.close(fd)
    return _open(path)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
