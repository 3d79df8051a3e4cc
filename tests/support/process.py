"""Programs under test as real processes, in a process group of their own that is always ended. Not a shell.

Output goes to files, not to pipes: a daemon that outlives its parent would hold a pipe open, and a full pipe
would block the program under test.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from tests.support.source import ROOT
from tests.support.wait import eventually

PYTHON = sys.executable
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD")


@dataclass(frozen=True)
class Finished:
    """What a program did: its exit code (negative: the signal that ended it) and what it said."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    def expect(self, code: int = 0) -> "Finished":
        """Itself, when the exit code is `code`; else AssertionError with all that was printed."""
        assert self.code == code, f"{self.argv} exited {self.code}, not {code}\n{self.out}\n{self.err}"
        return self


class Process(Protocol):
    """What is asked of a process that runs: subprocess.Popen is one, a fork (forks.py) another."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: signal.Signals, /) -> None: ...


class Running:
    """A program that runs now. Ended, with its whole group, by the context manager it came from."""

    def __init__(self, process: Process, out: IO[bytes], err: IO[bytes]) -> None:
        self._process = process
        self._out = out
        self._err = err

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    @property
    def out(self) -> str:
        """All of its standard output so far."""
        return text_of(self._out)

    @property
    def err(self) -> str:
        """All of its standard error so far."""
        return text_of(self._err)

    def says(self, text: str, *, within: float = 10.0) -> None:
        """Waits until it has printed `text` on either stream.

        Raises AssertionError when it ends before, or the time (seconds) is over.
        """

        def said_or_over() -> bool:
            return text in self.out + self.err or self.code is not None

        with suppress(AssertionError):
            eventually(said_or_over, within=within)
        assert text in self.out + self.err, (
            f"did not say {text!r}, exit code {self.code}\n{self.out}\n{self.err}"
        )

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, *, within: float = 10.0) -> int:
        """Its exit code, once it has ended by itself. Raises AssertionError when it runs on."""
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"still running after {within} s\n{self.out}\n{self.err}") from late

    def stop(self, *, within: float = 15.0) -> int:
        """Asks it to end, as Ctrl-C would, and returns its exit code."""
        self.signal(signal.SIGINT)
        return self.wait(within=within)


@contextmanager
def running(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    stdin: str = "",
) -> Iterator[Running]:
    """Starts a program; at the end kills its process group. `env` is by default the test's isolated one."""
    words = [str(word) for word in argv]
    refuse_secrets(words, os.environ if env is None else env)
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        source.write(stdin.encode())
        source.seek(0)
        process = subprocess.Popen(
            words, env=env, cwd=cwd, stdin=source, stdout=out, stderr=err, start_new_session=True
        )
        try:
            yield Running(process, out, err)
        finally:
            with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    stdin: str = "",
    within: float = 30.0,
) -> Finished:
    """Runs a program to its end.

    Raises AssertionError, with what it printed, when that takes more than `within` seconds.
    """
    with running(argv, env=env, cwd=cwd, stdin=stdin) as program:
        code = program.wait(within=within)
        return Finished(tuple(map(str, argv)), code, program.out, program.err)


def refuse_secrets(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """An argument list is public (ps, /proc): a test that puts a secret there would teach users to do so."""
    secrets = {
        name: value for name, value in env.items() if any(word in name for word in _SECRET_WORDS) and value
    }
    shown = [name for name, value in secrets.items() if any(value in word for word in argv)]
    assert not shown, f"the value of {', '.join(shown)} stands in the argument list"


def text_of(file: IO[bytes]) -> str:
    """All that was written to a file so far, wherever its position is."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")
