"""Not how users start the simulator (``Simulator.start``): one in a fork, for a fifth of that start's CPU time."""

import json
import secrets
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from llmpod.sim.launch import Simulator
from tests.support.forks import Forks
from tests.support.process import PYTHON, Running
from tests.support.source import ROOT

_START = 30.0  # seconds
_MAIN = ROOT / "llmpod" / "sim" / "__main__.py"


class ForkedSimulator(Simulator):
    """It ends with its context (`forked`), or with `close`."""

    def __init__(self, program: Running, key: str) -> None:
        process = cast("subprocess.Popen[str]", program)  # nobody but `close` asks it anything
        super().__init__(process, json.loads(program.out), key)
        self._program = program

    def close(self) -> None:
        self._program.signal(signal.SIGTERM)
        self._program.wait()


@contextmanager
def forked(forks: Forks, env: Mapping[str, str], **behavior: Any) -> Iterator[Simulator]:
    """A new simulator whose pods are inline, and which answers.

    Args:
        env: of the test: nothing of the machine's owner is in it.
        behavior: changes to the defaults, see `llmpod.sim.behavior`.
    """
    key = f"rpa_{secrets.token_hex(20).upper()}"
    words = ["--pods", "inline", "--parent-pid", str(forks.pid), "--behavior", json.dumps(behavior)]
    with forks.running([PYTHON, _MAIN, *words], env={**env, "LLMPOD_SIM_KEY": key}) as program:
        program.says("}\n", within=_START)
        with ForkedSimulator(program, key) as simulator:
            yield simulator
