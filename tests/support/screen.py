"""A program in a pseudo-terminal of its own, typed at as a person would."""

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


class Screen:
    """What the program shows, and its keyboard."""

    def __init__(self, leader: int, program: "subprocess.Popen[bytes]") -> None:
        self._leader = leader
        self.program = program
        self.shown = ""

    def until(self, text: str, *, within: float = 20.0) -> None:
        limit = time.monotonic() + within
        while text not in self.shown:
            assert time.monotonic() < limit, self.shown
            if not select.select([self._leader], [], [], 0.2)[0]:
                continue
            with suppress(OSError):  # EIO: the program has ended
                self.shown += os.read(self._leader, 4096).decode()

    def type(self, text: str) -> None:
        self.shown = ""
        os.write(self._leader, text.encode())


@contextmanager
def terminal(words: list[str], env: Mapping[str, str], *, cwd: Path | None = None) -> Iterator[Screen]:
    """The program with a pseudo-terminal of its own as its stdin, stdout and stderr."""
    leader, follower = pty.openpty()
    program = subprocess.Popen(
        words, env=env, cwd=cwd, stdin=follower, stdout=follower, stderr=follower, start_new_session=True
    )
    os.close(follower)
    try:
        yield Screen(leader, program)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        os.close(leader)
