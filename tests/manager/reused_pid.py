"""Not a test: the first process of a pid namespace, in which a stranger gets the number that our proxy had.

A program: ``python reused_pid.py COMMAND…`` calls COMMAND, which starts a proxy, kills that proxy, gives its pid to
a stranger, and calls COMMAND ``--shutdown``. Prints what became of whom as JSON. Needs a /proc of its own and the
right to choose the next pid (/proc/sys/kernel/ns_last_pid, pid_namespaces(7)).
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.support.wait import eventually

_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def _manage(*arguments: str) -> str:
    done = subprocess.run([*sys.argv[1:], *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def _proxy() -> tuple[int | None, int | None]:
    """The pids of its warden, which is what is written down, and of the proxy itself."""
    found = json.loads(_manage("status", "--json"))["proxy"]
    return found["supervisor"], found["pid"]


def _reap(pid: int) -> bool:
    """As process 1 we inherit the proxy, so it is gone when we have asked for its end."""
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


def _stranger(pid: int) -> "subprocess.Popen[bytes]":
    """A process with exactly this pid; another one may be quicker, so it is tried a few times."""
    for _ in range(50):
        _LAST_PID.write_text(str(pid - 1), encoding="ascii")
        stranger = subprocess.Popen(["sleep", "600"])
        if stranger.pid == pid:
            return stranger
        stranger.kill()
        stranger.wait()
    raise SystemExit(f"pid {pid} cannot be had")


def main() -> None:
    _manage()
    pid, proxy = _proxy()
    assert pid is not None, "the first pass started no proxy"
    assert proxy is not None
    for killed in (pid, proxy):
        os.kill(killed, signal.SIGKILL)
        eventually(lambda k=killed: _reap(k))  # type: ignore[misc]
    stranger = _stranger(pid)
    seen, _ = _proxy()
    _manage()
    second, _ = _proxy()
    _manage("--shutdown")
    became = {"pid": pid, "seen": seen, "second": second, "stranger": stranger.poll()}
    sys.stdout.write(json.dumps(became) + "\n")
    stranger.kill()
    stranger.wait()


if __name__ == "__main__":
    main()
