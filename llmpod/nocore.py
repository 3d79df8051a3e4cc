"""Not a sandbox: a process that holds secrets leaves no picture of its memory behind when it crashes."""

import resource
import sys
from contextlib import suppress
from typing import Final

# Linux writes no core of one byte and, at exactly this limit, gives none to a program such as apport either, which
# it does at 0 (core(5); kernel fs/coredump.c).
_LEAST: Final = 1 if sys.platform == "linux" else 0


def leave_no_core() -> None:
    """For this process and its children; a child that wants cores can raise its limit again.

    Its own user can still look into it (/proc, ptrace): the proxy is recognised by what stands in its environment,
    and who runs it is trusted. So it stays dumpable in that sense (prctl(2), PR_SET_DUMPABLE).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    least = _LEAST if hard == resource.RLIM_INFINITY else min(_LEAST, hard)
    with suppress(OSError, ValueError):  # no reason not to work
        resource.setrlimit(resource.RLIMIT_CORE, (least, hard))
