"""Not a shell and not a supervisor: local commands as machines, each with a warden that outlives the pass.

The truth is the process table: a machine exists while a process bears its mark. One that has ended by itself stays
listed, with how it ended, until its end is ordered, as a pod that has exited does.
"""

import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from llmpod.backends.local_port import HOST, free_port, in_turn
from llmpod.backends.machines import Machines, brief
from llmpod.backends.process_table import MARK, PORT, START_SECONDS, Member, ProcessTable
from llmpod.config import ProcessSection
from llmpod.config.children import MODEL_COMMAND
from llmpod.errors import BadSpec, CreateUnknown, ProviderUnavailable
from llmpod.identity import boot_id
from llmpod.model import Instance, Listing, Observed, Offer, Spec
from llmpod.text import ending, one_line

PLACE = "this machine"
_SHOWN_CHARS = 60  # of a PATH; cron's fits


class LocalProcesses:
    """Commands on this machine.

    Args:
        section: which command, and how it is to be run.
        machines: their directories.
        cwd: the command's working directory.
        environ: the caller's environment, of which a few variables are passed on.
        table: the processes of this machine.
        clock: epoch seconds.
    """

    def __init__(
        self,
        section: ProcessSection,
        machines: Machines,
        *,
        cwd: Path,
        environ: Mapping[str, str],
        table: ProcessTable | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._section = section
        self._machines = machines
        self._cwd = cwd
        inherited = {name: environ[name] for name in MODEL_COMMAND if name in environ}
        self._environ = {"PYTHONUNBUFFERED": "1", **inherited, **section.env}
        self._table = table or ProcessTable()
        self._clock = clock

    def list(self, expect: Collection[str]) -> Listing:  # noqa: ARG002 - nothing here lags
        alive = self._members()
        names = sorted({*alive, *self._machines.names()})
        found = [self._instance(name, alive.get(name, ())) for name in names]
        return Listing(tuple(seen for seen in found if seen is not None), self._clock())

    def create(
        self,
        spec: Spec,
        offer: Offer,  # noqa: ARG002 - there is one place
        name: str,
        env: Mapping[str, str],
        *,
        deadline: float,
    ) -> Instance:
        self.check()
        environ = {**self._environ, **spec.env, **self._keys(env)}
        with in_turn():
            return self._create(spec, name, environ, deadline)

    def _create(self, spec: Spec, name: str, environ: Mapping[str, str], deadline: float) -> Instance:
        alive = self._members()
        self._machines.tidy(keep=alive)
        others = {member.port for group in alive.values() for member in group if member.port}
        port = free_port(self._section.port, promised=others | self._machines.promised())
        order = {
            "argv": self._section.words(HOST, port),
            "cwd": str(self._cwd),
            "deadline": deadline,
            "stop_seconds": self._section.stop_seconds,
            "port": port,
            "digest": spec.digest,
            "created_at": self._clock(),
            "boot": boot_id(),
        }
        home = self._machines.begin(name, order)
        self._start(home, {**environ, MARK: name, PORT: str(port)})
        seen = self._instance(name, self._members().get(name, ()))
        if seen is None:
            raise CreateUnknown(f"{name} was started and is not to be seen.")
        return seen

    def destroy(self, instance_id: str) -> bool:
        known = self._machines.end(instance_id)
        group = self._members().get(instance_id, ())
        wardens = [member for member in group if member.keeper]
        for member in wardens or group:  # a warden ends the rest; what has none any more is ended at once
            self._table.signal(member, signal.SIGTERM if wardens else signal.SIGKILL)
        return known or bool(group)

    def hurry(self) -> None:
        """End at once what is being ended politely."""
        for name, group in self._members().items():
            for member in group:
                if member.keeper and self._machines.has_ended(name):
                    self._table.signal(member, signal.SIGINT)

    def tail(self, instance_id: str, lines: int) -> Sequence[str]:
        """The last lines of its output, oldest first."""
        return self._machines.tail(instance_id, lines)

    def close(self) -> None:
        """There is nothing to close."""

    # --- starting
    def _keys(self, env: Mapping[str, str]) -> dict[str, str]:
        """The server's key in the variables in which it looks for it."""
        key = env["VLLM_API_KEY"]
        return {**env, **dict.fromkeys(self._section.api_key_env, key)}

    def check(self) -> None:
        """Whether the command can be started at all.

        Raises:
            BadSpec: its program or its directory is not there.
        """
        program, environ = self._section.command[0], self._environ
        if not self._cwd.is_dir():
            raise BadSpec(f"`process.cwd`: there is no directory {self._cwd}.")
        if not shutil.which(self._cwd / program if "/" in program else program, path=environ.get("PATH")):
            raise BadSpec(
                f"`process.command`: there is no program {program!r}{_in_path(program, environ.get('PATH', ''))}.",
                hint="Write its whole path, such as /home/me/venv/bin/vllm.",
            )

    def _start(self, home: Path, environ: Mapping[str, str]) -> None:
        """Start the warden and hear from it.

        Raises:
            BadSpec: the command cannot be executed.
            ProviderUnavailable: the system starts no more processes.
            CreateUnknown: the warden says nothing.
        """
        try:
            word = self._table.start(home, environ)
        except OSError as e:
            raise ProviderUnavailable(f"No process can be started: {e.strerror}.", retry_after=10) from None
        if word == "ok":
            return
        if not word:
            raise CreateUnknown(
                f"The keeper of {home.name} did not say within {START_SECONDS:.0f} s that it runs."
            )
        self._machines.end(home.name)
        raise BadSpec(f"`process.command` cannot be executed: {one_line(word, 200)}.")

    # --- looking
    def _members(self) -> dict[str, tuple[Member, ...]]:
        return self._table.members(dict(self._sessions()))

    def _sessions(self) -> Iterator[tuple[str, int]]:
        """Those of this boot; a session of another one says nothing."""
        boot = boot_id()
        for name in self._machines.names():
            pid = self._machines.document(name, "warden.json").get("pid")
            if isinstance(pid, int) and self._machines.order(name).get("boot") == boot:
                yield name, pid

    def _instance(self, name: str, group: Sequence[Member]) -> Instance | None:
        """How a machine looks; None when there is none any more, or never was."""
        order = self._machines.order(name)
        if not group and (self._machines.has_ended(name) or not self._was_started(name)):
            return None
        observed, detail = self._state(name, group)
        port = order.get("port") or next((member.port for member in group if member.port), None)
        return Instance(
            id=name,
            name=name,
            observed=observed,
            usd_per_hour=0.0,
            base_url=f"http://{HOST}:{port}" if port else None,
            container_up=observed is Observed.RUNNING,
            created_at=order.get("created_at"),
            gpu=PLACE,
            detail=detail,
            switch_at=order.get("deadline"),
            digest=str(order.get("digest") or ""),
            key_optional=not self._section.require_key,
            ping_path=self._section.ping_path or "",
            listens=lambda: port is not None and self._table.listens(port, group),
        )

    def _was_started(self, name: str) -> bool:
        return bool(self._machines.document(name, "warden.json"))

    def _state(self, name: str, group: Sequence[Member]) -> tuple[Observed, str]:
        if exit_ := self._machines.document(name, "exit.json"):
            return Observed.EXITED, f"{ending(exit_.get('code'))}{self._said(name)}"
        if any(member.keeper for member in group):
            return Observed.RUNNING, ""
        if group:
            return Observed.BROKEN, "its keeper was killed; what is left of it is ended"
        return Observed.EXITED, f"it was killed, or this machine was restarted{self._said(name)}"

    def _said(self, name: str) -> str:
        """The end of its output; callers of the proxy read it too, so no place on this machine is named (T35)."""
        return brief(self.tail(name, 3))


def _in_path(program: str, path: str) -> str:
    """Where a program was looked for; cron's PATH explains much, a person's is long and known."""
    if "/" in program:
        return ""
    return f" in PATH={path}" if len(path) <= _SHOWN_CHARS else " in PATH"
