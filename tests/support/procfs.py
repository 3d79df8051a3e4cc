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
        stat, command = _told(pid, "stat"), _told(pid, "cmdline")
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, fields = stat[stat.index(b"(") + 1 : stat.rindex(b")")], _fields(stat)
    words = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return Process(
        pid,
        started=int(fields[19]),
        parent=int(fields[1]),
        state=fields[0].decode(),
        command=words or f"({name.decode(errors='replace')})",
    )


def descendants(of: int, *, without: frozenset[tuple[int, int]] = frozenset()) -> list[Process]:
    """All processes below `of`, nearest first; a branch whose (pid, started) is in `without` is left out."""
    children = _children()
    found: list[Process] = []
    parents = [of]
    while parents:
        below = [read(pid) for parent in parents for pid in children.get(parent, ())]
        level = [p for p in below if p and (p.pid, p.started) not in without]
        found += level
        parents = [process.pid for process in level]
    return found


def _children() -> dict[int, list[int]]:
    """By their parent, of all processes. Looked at twice a test: no more is read of each than that."""
    found: dict[int, list[int]] = {}
    for entry in os.scandir(PROC):
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                found.setdefault(int(_fields(_told(entry.name, "stat"))[1]), []).append(int(entry.name))
    return found


def _fields(stat: bytes) -> list[bytes]:
    """What follows the name, which may contain anything (proc(5))."""
    return stat[stat.rindex(b")") + 2 :].split()


def _told(pid: int | str, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        return file.read()
