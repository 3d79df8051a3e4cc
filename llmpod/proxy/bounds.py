"""Not a limit of requests: what the operating system grants this process."""

import resource
from typing import Final

WANTED_FILES: Final = 65536
RESERVED_FILES: Final = 256  # of those that may be open: for the cache, the log and model servers


def connections(wanted: int) -> int:
    """How many connections there may be, of those that a person allows."""
    return max(1, min(wanted, open_files() - RESERVED_FILES))


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
