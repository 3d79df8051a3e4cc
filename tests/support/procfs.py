"""Processes as /proc tells them (Linux). Elsewhere `available()` is False and tests do without."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process; `started` (clock ticks since boot) tells it from a later one with the same pid."""

    pid: int
    started: int
    parent: int
    state: str
    command: str

    @property
    def is_zombie(self) -> bool:
        return self.state in "ZX"

    def kill(self) -> None:
        """Ends exactly this process, not one that got its number later."""
        if read(self.pid) == self:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def available() -> bool:
    return (PROC / "self" / "stat").exists()


def read(pid: int) -> Process | None:
    """The process with this pid, or None when there is none (any more)."""
    try:
        name, fields = _stat(pid)
        command = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    words = command.replace(b"\0", b" ").decode(errors="replace").strip() or f"({name})"
    return Process(pid, started=int(fields[19]), parent=int(fields[1]), state=fields[0], command=words)


def descendants(of: int, *, without: frozenset[tuple[int, int]] = frozenset()) -> list[Process]:
    """All processes below `of`, nearest first; a branch whose (pid, started) is in `without` is left out."""
    everyone = list(_parents())
    found: list[int] = []
    parents = {of}
    while parents:
        level = [
            pid for pid, parent, started in everyone if parent in parents and (pid, started) not in without
        ]
        found += level
        parents = set(level)
    return [process for pid in found if (process := read(pid))]


def _parents() -> Iterator[tuple[int, int, int]]:
    """Pid, parent and start of every process of this machine: each test asks twice, so it costs one read each."""
    for pid in filter(str.isdigit, os.listdir(PROC)):  # noqa: PTH208 - a Path for each would cost more than the rest
        with suppress(FileNotFoundError, ProcessLookupError):
            _, fields = _stat(int(pid))
            yield int(pid), int(fields[1]), int(fields[19])


def _stat(pid: int) -> tuple[str, list[str]]:
    """Name, and the fields after it (proc(5)). Raises FileNotFoundError or ProcessLookupError."""
    with open(f"{PROC}/{pid}/stat", "rb", buffering=0) as file:
        text = file.read().decode(errors="replace")
    end = text.rindex(")")
    return text[text.index("(") + 1 : end], text[end + 2 :].split()
