"""Not an init: ends the process groups of pods whose simulator was killed before it could.

A container's processes end with it; here only its first one would, which watches its parent. So the simulator tells
this program each group that it starts and ends, a line `+PGID` or `-PGID`; the end of the input is the simulator's.
"""

import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress


def main(lines: Iterable[str]) -> int:
    """Read to the end, then kill what is left."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    left: set[int] = set()
    for line in lines:
        group = int(line[1:])
        if line.startswith("+"):
            left.add(group)
        else:
            left.discard(group)
    for group in left:
        with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            os.killpg(group, signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin))
