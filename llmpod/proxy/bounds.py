"""Not a limit of requests: what the operating system grants this process."""

import os
import resource
import sys
from typing import Final

STANDARD_ERROR: Final = 2
WANTED_FILES: Final = 65536
RESERVED_FILES: Final = 256  # of those that may be open: for model servers, the cache and the log
OWN_FILES: Final = (
    64  # of these for the cache and the log, where files are so few that clients get half of the rest
)


def connections(wanted: int) -> int:
    """How many connections there may be, of those that a person allows."""
    most = open_files()
    return max(1, min(wanted, max(most - RESERVED_FILES, (most - OWN_FILES) // 2)))


def hold_standard_files() -> None:
    """Let standard streams that were closed lead nowhere, so that no socket gets one of their numbers (F51)."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(fd)
    sys.stderr = sys.stderr or os.fdopen(STANDARD_ERROR, "w")  # Python has none where it was closed


def open_files() -> int:
    """How many files and sockets may be open at once; first asks for more than a login shell grants (1024)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):  # macOS caps it below what it says; what was granted stays
            pass
    return wanted if soft == resource.RLIM_INFINITY else soft
