"""Not the manager: stays with one local model server, from its start to the end of its whole process group.

A program of its own, of the standard library alone, so that it starts in milliseconds and outlives the pass that
started it: it leads the group, keeps the server's output in a bounded log, notes how the server ended, and ends the
group on SIGTERM or at the deadline, first politely, and on SIGINT at once. Nobody has to be left for that.

Its argument is a directory with ``machine.json``; it writes ``warden.json`` (its pid), ``log``, ``log.1`` and
``exit.json`` there, and one line to standard output: ``ok``, or why the server could not be started.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LOG_BYTES = 8 * 2**20
_PIECE = 65536
_TIDY_SECONDS = 3.0
_LOOK_SECONDS = 60.0  # the wall clock of a deadline may be set; a signal or output wakes us at once


class Log:
    """A file of bounded size and the one before it. A full disk costs lines, never the server's progress."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._file.tell() + len(data) > LOG_BYTES:
                self._path.replace(self._path.with_name("log.1"))
                self._file.close()
                self._file = self._path.open("ab", buffering=0)
            self._file.write(data)


class Warden:
    """Starts the server and stays until it has ended.

    Args:
        home: the machine's directory.
        plan: what ``machine.json`` says: ``argv``, ``cwd``, ``deadline`` (epoch seconds), ``stop_seconds``.
    """

    def __init__(self, home: Path, plan: dict[str, Any]) -> None:
        self._home = home
        self._deadline = float(plan["deadline"])
        self._patience = float(plan["stop_seconds"])
        self._kill_at: float | None = None
        self._signals, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self._signals, False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._output, end = os.pipe()
        self._log = Log(home / "log")
        try:
            self._server = subprocess.Popen(
                plan["argv"], cwd=plan["cwd"], stdin=subprocess.DEVNULL, stdout=end, stderr=end
            )
        finally:
            os.close(end)
        os.set_blocking(self._output, False)

    def stay(self) -> None:
        """Until the server has ended; then what is left of its group is ended, this program included."""
        sources = [self._signals, self._output]
        while self._server.poll() is None:
            ready, _, _ = select.select(sources, [], [], self._pause())
            if self._output in ready and not self._pump():
                sources.remove(self._output)
            self._judge(os.read(self._signals, 512) if self._signals in ready else b"")
        if self._output in sources:
            self._see_off()
        _write(self._home / "exit.json", {"code": self._server.returncode, "at": time.time()})
        os.killpg(0, signal.SIGKILL)

    def _see_off(self) -> None:
        """Whom the server leaves behind may tidy up, while somebody holds its output and it does not take long.

        Python's tracker of shared memory does so when all others have ended; killed before, it leaves what they shared
        (seen with vLLM 0.32: 420 MB of /dev/shm each time).
        """
        os.killpg(0, signal.SIGTERM)
        limit = time.monotonic() + _TIDY_SECONDS
        while (left := limit - time.monotonic()) > 0:
            ready, _, _ = select.select([self._output], [], [], left)
            if ready and not self._pump():
                return

    def _pause(self) -> float:
        if self._kill_at is not None:
            return max(0.0, self._kill_at - time.monotonic())
        return min(_LOOK_SECONDS, max(0.0, self._deadline - time.time()))

    def _judge(self, signals: bytes) -> None:
        """Whether it is time to end the group, or to end it for good."""
        if self._kill_at is None and (signal.SIGTERM in signals or time.time() >= self._deadline):
            self._kill_at = time.monotonic() + self._patience
            os.killpg(0, signal.SIGTERM)
        if signal.SIGINT in signals:
            self._kill_at = time.monotonic()
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._server.kill()
            self._server.wait()

    def _pump(self) -> bool:
        """Move what the server has written into the log; False when there is no more, now or ever."""
        try:
            data = os.read(self._output, _PIECE)
        except BlockingIOError:
            return False
        self._log.write(data)
        return bool(data)


def _write(path: Path, document: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(document), encoding="ascii")
        temporary.replace(path)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(home: Path) -> int:
    """Run one server to its end; 1 when it cannot be started."""
    plan = json.loads((home / "machine.json").read_text(encoding="utf-8"))
    _write(home / "warden.json", {"pid": os.getpid()})
    try:
        warden = Warden(home, plan)
    except (OSError, ValueError) as e:
        _say(getattr(e, "strerror", None) or str(e))
        return 1
    _say("ok")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # nobody listens any more
    warden.stay()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
