"""Not an interpreter's start: a script of ours in a fork of a process that has loaded its modules already.

A start loads libraries for 0.3 s of CPU, and the suite has thousands of passes of manage_pod.py. The fork becomes
a process like the other one: a session, arguments, environment, directory and files of its own, and an exit code.
Where the start itself is the subject, a test uses ``process.run``; with a clock of its own and under a tracer,
tests/sweep does.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from tests.support.process import PYTHON, Finished, Running, refuse_secrets
from tests.support.source import ROOT

_PACKAGES = (
    "llmpod.cli",
    "llmpod.config",
    "llmpod.lifecycle",
    "llmpod.backends",
    "llmpod.sim",
    "llmpod.proxy",
)
_LARGEST = 2**17  # bytes of arguments and environment
_START = 60.0


class Forks:
    """The client's side: one warm process, ended with the context."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="llmpod-forks-")
        self._path = os.path.join(self._folder.name, "socket")  # noqa: PTH118 - bind and connect want text
        self._process = subprocess.Popen(
            [PYTHON, "-m", "tests.support.forks", self._path],
            cwd=ROOT,
            stdin=subprocess.PIPE,  # its end is the server's end
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the process to fork from did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=_START)
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """Of the process that is forked, the parent of all that run."""
        return self._process.pid

    @contextmanager
    def running(
        self, argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path = ROOT, stdin: str = ""
    ) -> Iterator[Running]:
        """Starts a script of ours; at the end kills its process group. Like ``process.running``.

        Args:
            argv: python, the script and its arguments.
        """
        words = [str(word) for word in argv]
        refuse_secrets(words, env)
        with (
            tempfile.TemporaryFile() as source,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as call,
        ):
            source.write(stdin.encode())
            source.seek(0)
            call.connect(self._path)
            order = json.dumps([words[1:], dict(env), str(cwd)]).encode()
            socket.send_fds(call, [order], [file.fileno() for file in (source, out, err)])
            fork = _Fork(call)
            try:
                yield Running(fork, out, err)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(fork.pid, signal.SIGKILL)
                fork.wait()

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path = ROOT,
        stdin: str = "",
        within: float = 30.0,
    ) -> Finished:
        """Runs a script of ours to its end; like ``process.run``."""
        with self.running(argv, env=env, cwd=cwd, stdin=stdin) as program:
            code = program.wait(within=within)
            return Finished(tuple(map(str, argv)), code, program.out, program.err)


class _Fork:
    """One fork, as subprocess.Popen shows a child: the server tells of its end, whose child it is."""

    def __init__(self, call: socket.socket) -> None:
        self._call = call
        self._code: int | None = None
        self.pid = int(call.recv(32))

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired after so many seconds."""
        if self._code is None:
            if not select.select([self._call], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a fork", timeout or 0.0)
            self._code = int(self._call.recv(32))
        return self._code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class _End:
    """The end of a fork without its last act: to tidy up memory that is given back anyway took most of a short run.

    Threads have been waited for by then, and what others want done at the end is done (`atexit` calls it the last).
    """

    def __init__(self) -> None:
        self._code: int | None = None

    def run(self, script: str) -> None:
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as ended:
            if isinstance(ended.code, int | None):
                self._code = ended.code or 0
            raise
        self._code = 0

    def __call__(self) -> None:
        if self._code is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._code & 0xFF)


class _Server:
    """The process that is forked: no thread, nothing but loaded modules."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(path)
        self._listener.listen(64)
        self._ended, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake)
        self._callers: dict[int, socket.socket] = {}

    def serve(self) -> bool:
        """Until standard input ends: False. True in each fork, which has become what was ordered."""
        while True:
            ready, _, _ = select.select([0, self._ended, self._listener.fileno()], [], [])
            if 0 in ready:
                return False
            if self._ended in ready:
                os.read(self._ended, 4096)
                self._tell()
            if self._listener.fileno() in ready:
                call, _ = self._listener.accept()
                order, fds, _, _ = socket.recv_fds(call, _LARGEST, 3)
                if (pid := os.fork()) == 0:
                    call.close()
                    self._leave()
                    _become(json.loads(order), fds)
                    return True
                for fd in fds:
                    os.close(fd)
                self._callers[pid] = call
                call.send(b"%d" % pid)

    def _tell(self) -> None:
        """Each caller its exit code."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                with self._callers.pop(pid) as call, suppress(BrokenPipeError):
                    call.send(b"%d" % os.waitstatus_to_exitcode(status))

    def _leave(self) -> None:
        """In a fork: nothing of the server is left."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for call in self._callers.values():
            call.close()
        self._listener.close()
        os.close(self._ended)
        os.close(self._wake)


def _become(order: tuple[list[str], dict[str, str], str], fds: list[int]) -> None:
    argv, env, cwd = order
    os.setsid()
    for place, fd in enumerate(fds):
        os.dup2(fd, place)
        os.close(fd)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    os.chdir(cwd)
    sys.argv = argv
    sys.path[0] = str(ROOT)


def _load() -> None:
    for name in _PACKAGES:
        for found in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    end = _End()
    atexit.register(end)  # before all that is loaded
    _load()
    server = _Server(sys.argv[1])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if server.serve():
        end.run(sys.argv[0])
