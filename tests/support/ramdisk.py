"""Not the place for what a disk must keep: directories whose fsync costs nothing, for tests with thousands of passes.

A SIGKILL takes nothing out of the kernel's hands, so what a kill leaves is the same on either.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

_MEMORY = Path("/dev/shm")  # noqa: S108 - where there is none (macOS), the usual place will do


def quick_directory() -> "TemporaryDirectory[str]":
    """A directory in memory where the system has such, removed with its context."""
    return TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None)
