"""Processes as /proc tells them (Linux). Elsewhere `available()` is False and tests do without."""

import os
import signal
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
        stat = (PROC / str(pid) / "stat").read_text(errors="replace")
        command = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, fields = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
    words = command.replace(b"\0", b" ").decode(errors="replace").strip() or f"({name})"
    return Process(pid, started=int(fields[19]), parent=int(fields[1]), state=fields[0], command=words)


def descendants(of: int, *, without: frozenset[tuple[int, int]] = frozenset()) -> list[Process]:
    """All processes below `of`, nearest first; a branch whose (pid, started) is in `without` is left out."""
    everyone = [process for path in PROC.glob("[0-9]*") if (process := read(int(path.name)))]
    found: list[Process] = []
    parents = {of}
    while parents:
        level = [p for p in everyone if p.parent in parents and (p.pid, p.started) not in without]
        found += level
        parents = {process.pid for process in level}
    return found
