"""Not manage_pod.py: calls it as a process forked by the zygote, and kills it at a chosen failpoint or syscall."""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llmpod.lifecycle.failpoint import VARIABLE
from llmpod.sim.launch import Simulator
from tests.support.process import PYTHON, run

_ZYGOTE = Path(__file__).with_name("zygote.py")
_ANSWER_SECONDS = 60.0
# What reaches beyond the process: files, directories, locks, sockets, other processes. recvfrom too, since a
# request that was sent and whose answer was never read is the moment that this is all about.
_SYSCALLS = (
    "?write,?pwrite64,?writev,?sendto,?sendmsg,?recvfrom,?recvmsg,?connect,?rename,"
    "?renameat,?renameat2,?fsync,?fdatasync,?open,?openat,?unlink,?unlinkat,?link,?linkat,"
    "?symlink,?ftruncate,?flock,?fcntl,?mkdir,?mkdirat,?chmod,?fchmod,?fchmodat,?kill,"
    "?clone,?clone3,?fork,?vfork,?execve"
)
_CALL = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\(")
# Without an effect of their own: opening to read, reading a descriptor's flags, naming a failpoint.
_IDLE = re.compile(
    r'^\d+ +(open(at)?\((?!.*(O_CREAT|O_WRONLY|O_RDWR))|fcntl\(\d+, F_GET|write\(2, "LLMPOD_FAIL)'
)


@dataclass(frozen=True)
class Kill:
    """SIGKILL at the n-th failpoint, or right before the n-th call of one syscall."""

    n: int
    syscall: str = ""

    def __str__(self) -> str:
        return f"{self.syscall or 'point'} {self.n}"


@dataclass(frozen=True)
class Ended:
    """How a call of the manager ended: exit code, negative for the signal that ended it, and what it said."""

    code: int
    said: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def moments(self) -> list[Kill]:
        """The failpoints that it passed; told only when the variable is set."""
        return [Kill(n + 1) for n in range(self.said.count(f"{VARIABLE}: "))]


class Managers:
    """Calls ROOT/manage_pod.py for one user after another; to be closed.

    Args:
        root: the source tree under test, ours or a copy that was changed.
        sim: gives the time, and takes part in sleeping.
    """

    def __init__(self, root: Path, sim: Simulator) -> None:
        self._root = root
        self._sim = sim
        self._zygote = subprocess.Popen(
            [sys.executable, "-P", str(_ZYGOTE), str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
        )

    def close(self) -> None:
        """The zygote ends when nobody can call it any more."""
        with suppress(BrokenPipeError):
            self._zygote.communicate(timeout=10)

    def rehearse(self, arguments: Sequence[str], environ: Mapping[str, str]) -> int:
        """The exit code of an undisturbed call that the zygote plays in itself, before it forks any."""
        self._begin(arguments, environ, "")
        return self._answer()

    def call(
        self, arguments: Sequence[str], environ: Mapping[str, str], directory: Path, kill: Kill | None = None
    ) -> Ended:
        """One call to its end.

        Args:
            arguments: of manage_pod.py.
            environ: its whole environment.
            directory: where its output and a trace may be written.
            kill: when to kill it.
        """
        output = directory / "output"
        output.unlink(missing_ok=True)
        if kill is None:
            self._begin(arguments, environ, output)
        elif kill.syscall:
            self._begin(arguments, {**environ, VARIABLE: "0"}, output, stopped=True)
            return self._under(_strace(directory, kill), output)
        else:
            self._begin(arguments, {**environ, VARIABLE: str(kill.n)}, output)
        self._answer()
        return Ended(os.waitstatus_to_exitcode(self._answer()), output.read_text(errors="replace"))

    def from_nothing(
        self, arguments: Sequence[str], environ: Mapping[str, str], kill: Kill | None = None
    ) -> Ended:
        """One call as cron makes it: a new interpreter, this machine's own clock; killed at a failpoint only."""
        armed = {VARIABLE: str(kill.n)} if kill else {}
        done = run(
            [PYTHON, self._root / "manage_pod.py", *arguments], env={**environ, **armed}, cwd=self._root
        )
        return Ended(done.code, done.out + done.err)

    def trace(
        self, arguments: Sequence[str], environ: Mapping[str, str], directory: Path
    ) -> tuple[Ended, list[Kill]]:
        """One undisturbed call, and every moment at which it might have been killed.

        These are its failpoints and, where strace works, its syscalls.
        """
        output, log = directory / "output", directory / "strace"
        output.unlink(missing_ok=True)
        named = {**environ, VARIABLE: "0"}
        if no_strace():
            ended = self.call(arguments, named, directory)
            return ended, ended.moments
        log.unlink(missing_ok=True)
        self._begin(arguments, named, output, stopped=True)
        ended = self._under(_strace(directory, None), output)
        return ended, ended.moments + _moments(log.read_text(errors="replace").splitlines())

    # --- the zygote
    def _begin(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        output: Path | str,
        *,
        stopped: bool = False,
    ) -> None:
        call = {
            "argv": list(arguments),
            "environ": dict(environ),
            "output": str(output),
            "ahead": self._sim.state()["now"] - time.time(),
            "control": self._sim.control_url,
            "stopped": stopped,
        }
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(call).encode() + b"\n")
        self._zygote.stdin.flush()

    def _answer(self) -> int:
        """The next line of the zygote. It writes a line only when the one before was read, so none is buffered."""
        assert self._zygote.stdout is not None
        if not select.select([self._zygote.stdout], [], [], _ANSWER_SECONDS)[0]:
            self._zygote.kill()
            raise AssertionError(f"a call of the manager took more than {_ANSWER_SECONDS:g} s")
        line = self._zygote.stdout.readline()
        assert line, "the zygote died"
        return int(line)

    def _under(self, strace: Sequence[str], output: Path) -> Ended:
        """The stopped child goes on under strace."""
        pid = self._answer()
        tracer = subprocess.Popen([*strace, "-p", str(pid)], stderr=subprocess.PIPE)
        assert tracer.stderr is not None
        first = tracer.stderr.readline()
        os.kill(pid, signal.SIGCONT)
        code = os.waitstatus_to_exitcode(self._answer())
        tracer.communicate()
        assert b"attached" in first, first
        return Ended(code, output.read_text(errors="replace"))


@cache
def no_strace() -> str:
    """Why syscalls cannot be swept here, or nothing when they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen(["sleep", "60"]) as child:
        tracer = subprocess.Popen(["strace", "-p", str(child.pid)], stderr=subprocess.PIPE)
        assert tracer.stderr is not None
        first = tracer.stderr.readline().decode(errors="replace")
        child.kill()
        tracer.communicate()
    return "" if "attached" in first else f"ptrace is forbidden: {first.strip()}"


def _strace(directory: Path, kill: Kill | None) -> list[str]:
    inject = ["-e", f"inject={kill.syscall}:signal=SIGKILL:when={kill.n}"] if kill else []
    return [
        "strace",
        "-f",
        "-o",
        str(directory / "strace"),
        "-e",
        "signal=none",
        "-e",
        f"trace={_SYSCALLS}",
        *inject,
    ]


def _moments(log: Sequence[str]) -> list[Kill]:
    """Every traced call that has an effect outside; strace counts each syscall by itself, so do we."""
    counts: dict[str, int] = {}
    moments, main = [], None
    for line in log:
        found = _CALL.match(line)
        if found is None:
            continue
        main = main or found["pid"]
        if found["pid"] != main:
            continue
        name = found["name"]
        counts[name] = counts.get(name, 0) + 1
        if not _IDLE.match(line):
            moments.append(Kill(counts[name], name))
    return moments
