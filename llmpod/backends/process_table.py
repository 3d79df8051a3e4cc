"""Not an opinion: the processes of this user that belong to our machines, as /proc shows them (Linux), and the few
things that one can do to them. The only file of this backend that talks to the operating system.

A machine's processes bear a mark in their environment. A server may overwrite its own (vLLM's workers do, to show
their names), so whoever is in the session of the machine's warden belongs to it, too. Without /proc (macOS) only the
warden itself is known, by its pid.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llmpod.backends import process_warden
from llmpod.identity import process_id
from llmpod.model import ProcessId
from llmpod.sockets import holds, listening

MARK = "LLMPOD_MACHINE"
PORT = "LLMPOD_MACHINE_PORT"
START_SECONDS = 20.0
WARDEN = b"process_warden.py"


@dataclass(frozen=True, slots=True)
class Member:
    """A living process of a machine; the ``keeper`` is its warden."""

    id: ProcessId
    keeper: bool
    port: int | None = None


class ProcessTable:
    """The processes of this machine."""

    def members(self, sessions: Mapping[str, int]) -> dict[str, tuple[Member, ...]]:
        """The living processes of every machine.

        Args:
            sessions: what was written down: the session (the warden's pid) of each machine, by name.
        """
        return _members(sessions)

    def start(self, home: Path, environ: Mapping[str, str]) -> str:
        """Start the warden of a machine in a session of its own.

        Returns:
            What it says: ``ok``, why the server cannot be executed, or nothing within :data:`START_SECONDS`.

        Raises:
            OSError: the system starts no more processes.
        """
        warden = subprocess.Popen(
            [sys.executable, "-I", "-S", process_warden.__file__, str(home)],
            env=environ,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert warden.stdout is not None
        with warden.stdout as said:
            ready, _, _ = select.select([said], [], [], START_SECONDS)
            word = said.readline().decode("utf-8", "replace").strip() if ready else ""
        if word not in ("", "ok"):  # it ends by itself, and should not be seen while it does
            with suppress(subprocess.TimeoutExpired):
                warden.wait(5.0)
        warden.returncode = 0  # it goes on without us: not a child to wait for
        return word

    def listens(self, port: int, group: Iterable[Member]) -> bool:
        """Whether one of them is seen to listen there: a port may be taken before a server has loaded its model."""
        sockets = listening(port)
        return bool(sockets) and any(holds(member.id.pid, sockets) for member in group)

    def signal(self, member: Member, sign: signal.Signals) -> None:
        """Never to a successor of its pid: where there are pidfds they tell, and the identity is looked at again."""
        with suppress(ProcessLookupError):
            if not hasattr(os, "pidfd_open"):
                if process_id(member.id.pid) == member.id:
                    os.kill(member.id.pid, sign)
                return
            fd = os.pidfd_open(member.id.pid)
            try:
                if process_id(member.id.pid) == member.id:
                    signal.pidfd_send_signal(fd, sign)
            finally:
                os.close(fd)


def _members(sessions: Mapping[str, int]) -> dict[str, tuple[Member, ...]]:
    if not Path("/proc/self/stat").exists():
        return _without_proc(sessions)
    everyone = list(_mine())
    marked = {pid: name for pid, _, name, _ in everyone if name}
    owner = {session: marked[pid] for pid, session, name, _ in everyone if name}
    # A pid is not given away while a session bears it: without a stranger at its head, a session is the one noted.
    heads = {pid for pid, *_ in everyone}
    owner |= {session: name for name, session in sessions.items() if session not in heads | owner.keys()}
    found: dict[str, list[Member]] = {}
    for pid, session, name, port in everyone:
        whose = name or owner.get(session, "")
        if whose and (identity := process_id(pid)) is not None:
            found.setdefault(whose, []).append(Member(identity, pid == session and _keeps(pid), port))
    return {name: tuple(those) for name, those in found.items()}


def _mine() -> Iterator[tuple[int, int, str, int | None]]:
    """Pid, session, machine and port of every process of this user that runs."""
    me = os.geteuid()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):  # it has ended meanwhile, or is not ours to read
            if path.stat().st_uid != me:
                continue
            fields = (path / "stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()
            if fields[0] in "ZX":
                continue
            name, port = _marks((path / "environ").read_bytes().split(b"\0"))
            yield int(path.name), int(fields[3]), name, port


def _keeps(pid: int) -> bool:
    """Whether this process is a warden: a server may lead a session of its own."""
    with suppress(OSError):
        return WARDEN in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _marks(variables: Iterable[bytes]) -> tuple[str, int | None]:
    found = dict(
        item.decode("ascii", "replace").partition("=")[::2]
        for item in variables
        if item.startswith(MARK.encode())
    )
    port = found.get(PORT, "")
    return found.get(MARK, ""), int(port) if port.isdecimal() else None


def _without_proc(sessions: Mapping[str, int]) -> dict[str, tuple[Member, ...]]:
    alive = ((name, process_id(pid)) for name, pid in sessions.items())
    return {name: (Member(identity, keeper=True),) for name, identity in alive if identity is not None}
