"""Not a decision: ends one process of ours, and only that one, politely first."""

import contextlib
import os
import signal
import time
from collections.abc import Callable

from llmpod.identity import process_id
from llmpod.model import ProcessId

STOP_SECONDS = 10.0


def stop(
    process: ProcessId, *, patience: float = STOP_SECONDS, clock: Callable[[], float] = time.monotonic
) -> None:
    """SIGTERM, seconds of patience, SIGKILL; only ever to this very process, not to a successor of its pid."""
    for sign, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        if not send(process, sign):
            return
        limit = clock() + wait
        while clock() < limit:
            if _ended(process):
                return
            time.sleep(0.02)


def exit_code(process: ProcessId) -> int | None:
    """The exit code of a child that has ended, -1 when another process reaped it, None while it runs."""
    with contextlib.suppress(ChildProcessError):
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None
    return -1 if process_id(process.pid) != process else None


def _ended(process: ProcessId) -> bool:
    return exit_code(process) is not None or process_id(process.pid) != process


def send(process: ProcessId, sign: signal.Signals) -> bool:
    """Signal it; False when it is gone.

    Through a pidfd where there is one: that cannot reach a stranger that got the pid meanwhile.
    """
    try:
        if not hasattr(os, "pidfd_open"):
            return _checked(process, sign)
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if process_id(process.pid) != process:
            return False
        signal.pidfd_send_signal(fd, sign)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def _checked(process: ProcessId, sign: signal.Signals) -> bool:
    if process_id(process.pid) != process:
        return False
    os.kill(process.pid, sign)
    return True
