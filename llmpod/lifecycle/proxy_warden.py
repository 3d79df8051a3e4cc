"""Not the manager: stays with the proxy's process and starts it anew when it crashes, until told to end it.

A program of its own, of the standard library alone, so that it starts in milliseconds, takes few megabytes and
outlives the pass that started it. SIGTERM and SIGINT are passed on, so the proxy drains; it is killed when it takes
too long. SIGHUP is passed on too. A proxy that ended as it was told, or says that it cannot start (78, 98), is over.

Its arguments are the file in which it tells what happened, the log, which its own standard output must be, and the
proxy's command. It keeps the log from growing without end, and ends with the proxy's last exit code. Killed itself, it
leaves a proxy behind that the next pass replaces.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

STOP_SECONDS = 9.5  # a little less than the manager's own patience
MAX_CRASHES = 5
WINDOW_SECONDS = 60.0
FIRST_PAUSE = 0.1  # seconds before a second start; twice that before each further one
# told to end, in its own words or in the system's; a wrong configuration (EX_CONFIG); a port that is taken
FINAL = frozenset({0, -signal.SIGTERM, -signal.SIGINT, 78, 98})
NO_PROCESS = 71  # EX_OSERR of sysexits.h
LOG_BYTES = 10 * 2**20
_LOOK_SECONDS = 60.0
_PIECE = 2**16
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Crashes:
    """When the proxy crashed, and whether to start it once more.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._recent: deque[float] = deque()
        self.total = 0

    def another(self) -> float | None:
        """Seconds to wait before the next start; None: it crashed too often within a minute."""
        now = self._clock()
        self.total += 1
        self._recent.append(now)
        while self._recent[0] <= now - WINDOW_SECONDS:
            self._recent.popleft()
        before = len(self._recent) - 1
        if before + 1 >= MAX_CRASHES:
            return None
        return FIRST_PAUSE * 2.0 ** (before - 1) if before else 0.0


class Warden:
    """Runs the proxy.

    Args:
        notes: the file in which it tells what happened.
        log: the file that standard output and error lead to, opened for writing at its end.
        command: the proxy's.
    """

    def __init__(self, notes: Path, log: Path, command: list[str]) -> None:
        self._notes = notes
        self._log = log
        self._command = command
        self._crashes = Crashes()
        self._proxy: subprocess.Popen[bytes] | None = None
        self._kill_at: float | None = None
        self._last_crash: dict[str, float] | None = None
        self._signals, wake = os.pipe()
        for end in (self._signals, wake):
            os.set_blocking(end, False)
        for number in (*FORWARDED, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def stay(self) -> int:
        """Until the proxy is over; returns its last exit code."""
        while True:
            code = self._once()
            self._proxy = None
            if self._kill_at is not None or code in FINAL:
                self._note()
                return code
            self._last_crash = {"at": time.time(), "code": code}
            pause = self._crashes.another()
            self._note(gave_up=pause is None)
            if pause is None or not self._rest(pause):
                return code

    def _once(self) -> int:
        """One start and what comes of it; a system that has no process to give now may have one in a moment."""
        try:
            self._proxy = self._start()
        except OSError as e:
            sys.stderr.write(f"The proxy cannot be started: {e}\n")
            return NO_PROCESS
        self._note()
        return self._watch(self._proxy)

    def _start(self) -> "subprocess.Popen[bytes]":
        """It begins deaf to SIGHUP, which would end it until it listens; what it would miss it reads at its start."""
        heard = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            return subprocess.Popen(self._command)
        finally:
            signal.signal(signal.SIGHUP, heard)

    def _watch(self, proxy: "subprocess.Popen[bytes]") -> int:
        while (code := proxy.poll()) is None:
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                proxy.kill()
            self._bound_log()
            self._hear(self._patience())
        return code

    def _patience(self) -> float:
        return _LOOK_SECONDS if self._kill_at is None else max(0.05, self._kill_at - time.monotonic())

    def _bound_log(self) -> None:
        """Set a long log aside and begin anew in the same file: who writes at its end goes on; a line may be lost."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size <= LOG_BYTES:
                return
            with contextlib.suppress(OSError):  # a full disk has more need of room than of old lines
                self._set_aside()
            os.truncate(self._log, 0)

    def _set_aside(self) -> None:
        temporary, old = self._log.with_suffix(".log.new"), self._log.with_suffix(".log.1")
        temporary.unlink(missing_ok=True)
        with self._log.open("rb") as source, temporary.open("xb") as copy:
            while piece := source.read(_PIECE):
                copy.write(piece)
        temporary.replace(old)

    def _rest(self, pause: float) -> bool:
        """Wait before the next start; False when told to end meanwhile."""
        until = time.monotonic() + pause
        while self._kill_at is None and (left := until - time.monotonic()) > 0:
            self._hear(left)
        return self._kill_at is None

    def _hear(self, patience: float) -> None:
        """Wait for a signal and pass it on."""
        if not select.select([self._signals], [], [], patience)[0]:
            return
        for number in os.read(self._signals, 512):
            if number in (signal.SIGTERM, signal.SIGINT) and self._kill_at is None:
                self._kill_at = time.monotonic() + STOP_SECONDS
            if number in FORWARDED and self._proxy is not None:
                self._proxy.send_signal(number)

    def _note(self, *, gave_up: bool = False) -> None:
        """Tell the manager how things stand; a full disk costs that, never the proxy."""
        document = {
            "warden": os.getpid(),
            "proxy": self._proxy.pid if self._proxy is not None else None,
            "crashes": self._crashes.total,
            "last_crash": self._last_crash,
            "gave_up": gave_up,
        }
        temporary = self._notes.with_name(f".{self._notes.name}.{os.getpid()}.00000000")  # swept by passes
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(document), encoding="ascii")
            temporary.replace(self._notes)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(Warden(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]).stay() & 0xFF)
