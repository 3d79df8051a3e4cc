"""Not the manager and not a test: a warm interpreter that forks one process for each call of ``manage_pod.py``.

A program: ``python zygote.py ROOT``. Importing the libraries takes ten times as long as a pass, and a sweep makes ten
thousand passes. So they are imported once; each call is then a forked process that runs ROOT/manage_pod.py from its
first line, with its own pid, memory, files, sockets and death.

The clock: ``time.time`` and ``time.clock_gettime`` are as far ahead as the simulator's clock, and ``time.sleep``
moves it instead of waiting, as libfaketime would do. So graces and back-offs keep the lengths they have in production.

Protocol: in, a line of JSON a call: argv, environ, output, ahead, control, stopped. Out, two lines: the pid, and when
the process has ended its wait status. A call whose output is empty is a rehearsal: it is played in this process, so
that every fork finds what a first pass compiles and looks up (patterns, type hints: two fifths of its time). Out, one
line: its exit code.
"""

import ctypes
import gc
import io
import json
import os
import pkgutil
import runpy
import signal
import sys
import time
import traceback
import urllib.request
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

_PR_SET_PTRACER = 0x59616D61
_ANYBODY = ctypes.c_ulong(-1)


class Clock:
    """Seconds since the epoch, ahead of the machine's; whoever sleeps moves it and the simulator's."""

    def __init__(self) -> None:
        self._real, self._gettime = time.time, time.clock_gettime
        self.ahead = 0.0
        self.control = ""

    def now(self) -> float:
        return self._real() + self.ahead

    def gettime(self, clock: int, /) -> float:
        return self._gettime(clock) + self.ahead

    def sleep(self, seconds: float, /) -> None:
        body = json.dumps({"seconds": seconds}).encode()
        with urllib.request.urlopen(f"{self.control}/advance", body):
            self.ahead += seconds


def _become_the_manager(root: str, clock: Clock, call: dict[str, Any]) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(call["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(fd, target)
    os.close(null)
    os.close(output)
    if call["stopped"]:
        with suppress(AttributeError):  # a kernel that lets only parents trace lets this tracer in
            ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
    _manage(root, clock, call)


def _manage(root: str, clock: Clock, call: dict[str, Any]) -> None:
    clock.ahead, clock.control = call["ahead"], call["control"]
    os.environ.clear()
    os.environ.update(call["environ"])
    script = str(Path(root) / "manage_pod.py")
    sys.argv = [script, *call["argv"]]
    runpy.run_path(script, run_name="__main__")


def _run(root: str, clock: Clock, call: dict[str, Any]) -> int:
    """In the child: the exit code."""
    try:
        _become_the_manager(root, clock, call)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:  # whatever it was, this copy of the zygote must not go on as one
        traceback.print_exc()
    return 70


def _rehearse(root: str, clock: Clock, call: dict[str, Any]) -> int:
    """The exit code. What it says is of no interest, and this process's output is for the protocol."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            _manage(root, clock, call)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        finally:
            _freeze()
    return 70


def _freeze() -> None:
    """No garbage is left whose collection would copy the pages that are shared."""
    gc.collect()
    gc.freeze()


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _serve(root: str, clock: Clock) -> None:
    for line in sys.stdin:
        call = json.loads(line)
        if not call["output"]:
            _say(_rehearse(root, clock, call))
            continue
        pid = os.fork()
        if pid == 0:
            code = _run(root, clock, call)
            sys.stdout.flush()
            os._exit(code)
        if call["stopped"]:
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        _say(pid)
        _say(os.waitpid(pid, 0)[1])


def _warm_up(root: str) -> None:
    """All that a pass would import."""
    from rich.console import Console

    import llmpod.cli
    from llmpod import _venv
    from llmpod.backends import runpod_pod

    for module in (_venv, llmpod.cli, runpod_pod):
        assert Path(module.__file__ or "").is_relative_to(root), f"{module} is not of the sources under test"
    Console(file=io.StringIO()).print(pkgutil)
    _freeze()


def main() -> None:
    root = sys.argv[1]
    sys.path.insert(0, root)
    clock = Clock()
    time.clock_gettime = clock.gettime
    time.time, time.sleep = clock.now, clock.sleep  # type: ignore[assignment]  # whole and index numbers never come
    _warm_up(root)
    _serve(root, clock)


if __name__ == "__main__":
    main()
