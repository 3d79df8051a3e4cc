"""Providers on this machine: a process table in memory, whose servers and wardens fail; somebody else's server."""

import json
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from llmpod.backends.machines import Machines
from llmpod.backends.process import LocalProcesses
from llmpod.backends.process_table import MARK, Member, ProcessTable
from llmpod.backends.static import StaticServer
from llmpod.config import ProcessSection
from llmpod.model import Observed, ProcessId
from tests.lifecycle.provider import Clock, Faults, Provider


@dataclass
class Group:
    """The processes of one machine."""

    pid: int
    home: Path
    deadline: float
    ready_at: float
    kept: bool = True
    ends_at: float | None = None


@dataclass
class Processes(Provider):
    """This machine, on which servers come and go."""

    directory: Path = Path()
    groups: dict[str, Group] = field(default_factory=dict)
    count: int = 100
    faults = Faults(
        create=("no processes", "not executable", "unknown-made", "unknown-not-made"),
        delete=("deaf",),
    )

    @classmethod
    def made(cls, clock: Clock, directory: Path) -> "Processes":
        return cls(clock, directory=directory)

    @property
    def backend(self) -> LocalProcesses:
        return LocalProcesses(
            ProcessSection(command=("sh",)),
            Machines(self.directory / "machines"),
            cwd=self.directory,
            environ={"PATH": "/bin:/usr/bin"},
            table=Table(self),
            clock=self.clock,
        )

    def alive(self) -> list[str]:
        self.pass_time()
        return list(self.groups)

    def is_ready(self, instance_id: str) -> bool:
        group = self.groups.get(instance_id)
        return group is not None and group.kept and self.clock() >= group.ready_at

    def become(self, observed: Observed) -> None:
        for name in self.alive():
            if observed is Observed.EXITED:
                self.end(name, 1)
            elif observed is Observed.BROKEN:
                self.groups[name].kept = False

    def lose(self) -> None:
        self.groups.clear()

    def pass_time(self) -> None:
        """What wardens do meanwhile."""
        for name, group in list(self.groups.items()):
            due = min(group.deadline, group.ends_at if group.ends_at is not None else group.deadline)
            if group.kept and due <= self.clock():
                self.end(name, -15)

    def end(self, name: str, code: int) -> None:
        group = self.groups.pop(name)
        with suppress(OSError):  # the disk may be full, which no warden minds
            (group.home / "exit.json").write_text(json.dumps({"code": code}))


@dataclass
class Table(ProcessTable):
    """The same, as the backend meets it."""

    world: Processes

    def members(self, sessions: Mapping[str, int]) -> dict[str, tuple[Member, ...]]:
        self.world.pass_time()
        return {
            name: (Member(ProcessId(group.pid, 0, ""), keeper=group.kept),)
            for name, group in self.world.groups.items()
        }

    def start(self, home: Path, environ: Mapping[str, str]) -> str:
        world, fault = self.world, self.world.create_fault()
        if fault == "no processes":
            raise OSError(11, "Resource temporarily unavailable")
        if fault == "unknown-not-made":
            return ""
        world.count += 1
        with suppress(OSError):
            (home / "warden.json").write_text(json.dumps({"pid": world.count}))
        if fault == "not executable":
            return "Exec format error"
        plan, name = json.loads((home / "machine.json").read_text()), environ[MARK]
        assert name not in world.groups, "a name was used twice"
        ready_at = world.clock() + world.load_seconds
        world.groups[name] = Group(world.count, home, plan["deadline"], ready_at)
        return "" if fault == "unknown-made" else "ok"

    def listens(self, port: int, group: Iterable[Member]) -> bool:
        """These pids are nobody's, or a stranger's: this machine is not asked (its table took half of the time)."""
        ready = {g.pid for g in self.world.groups.values() if g.kept and self.world.clock() >= g.ready_at}
        return any(member.id.pid in ready for member in group)

    def signal(self, member: Member, sign: signal.Signals) -> None:
        world, fault = self.world, self.world.delete_fault()
        for name, group in list(world.groups.items()):
            if group.pid == member.id.pid and sign is signal.SIGKILL:
                world.groups.pop(name)
            elif group.pid == member.id.pid and group.ends_at is None:
                group.ends_at = world.clock() + (10.0 if fault == "deaf" else world.delete_lag)


@dataclass
class Elsewhere(Provider):
    """Somebody else's server: it is there or not, and nobody but us knows whether we use it."""

    directory: Path = Path()
    gone_until: float = 0.0
    faults = Faults(observed=(None,))

    @classmethod
    def made(cls, clock: Clock, directory: Path) -> "Elsewhere":
        return cls(clock, directory=directory)

    @property
    def backend(self) -> StaticServer:
        machines = Machines(self.directory / "machines")
        return StaticServer("http://127.0.0.1:9", machines, clock=self.clock)

    def alive(self) -> list[str]:
        return [seen.id for seen in self.backend.list(()).instances]

    def is_ready(self, instance_id: str) -> bool:
        return self.clock() >= self.gone_until

    def become(self, observed: Observed) -> None:
        """Nothing of ours becomes anything."""

    def lose(self) -> None:
        self.gone_until = self.clock() + 100.0
