"""Not a scheduler: SLURM jobs as machines, through sbatch, squeue and scancel, each call bounded in time.

A job bears its machine's unique name, so it is found by it even when the submission got no clear answer. What SLURM
has forgotten (it remembers ended jobs for minutes) is known by the directory of ours, which also holds the log when
the cluster shares that directory.
"""

import math
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmpod.backends.local_port import HOST, free_port, is_free
from llmpod.backends.machines import Machines, brief
from llmpod.backends.slurm_script import script
from llmpod.config import SlurmSection
from llmpod.errors import BadSpec, CreateUnknown, ProviderUnavailable
from llmpod.model import Instance, Listing, Observed, Offer, Spec
from llmpod.text import one_line

QUICK_SECONDS = 15.0  # with its controller dead, a SLURM command hangs (seen: srun for more than 12 s)
_FIELDS = "%i|%T|%j|%r"
_NODE_PORTS = (
    20000,
    10000,
)  # from, how many; another number than at the tunnel's far end, which may be one machine
_UNCLEAR = ("timed out", "unable to contact", "zero bytes", "connection", "communication", "not responding")
_WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "STOPPED", "RESV_DEL_HOLD"}
)
_ALIVE = frozenset({"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING"})


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Job:
    """One job as squeue shows it."""

    id: str
    state: str
    reason: str


Runner = Callable[[Sequence[str], str, Mapping[str, str]], Done]
"""Runs a command with text on its standard input and an environment. Raises TimeoutError, OSError."""


_PROGRAMS = ("sbatch", "squeue", "scancel")


class SlurmJobs:
    """Jobs of this user.

    Args:
        section: what to run, and how to be reached.
        machines: their directories.
        cwd: working directory of the jobs.
        environ: the jobs' environment.
        run: runs SLURM's commands.
        clock: epoch seconds.
    """

    def __init__(
        self,
        section: SlurmSection,
        machines: Machines,
        *,
        cwd: Path,
        environ: Mapping[str, str],
        run: Runner | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._section = section
        self._machines = machines
        self._cwd = cwd
        self._environ = environ
        self._run = run or run_bounded
        self._clock = clock

    def list(self, expect: Collection[str]) -> Listing:  # noqa: ARG002 - the controller's list does not lag
        jobs = self._jobs()
        alive = {name for name, job in jobs.items() if job.state in _WAITING | _ALIVE}
        noted = {name for name in self._machines.names() if not self._machines.has_ended(name)}
        names = sorted(alive | {name for name in noted if name in jobs or self._was_submitted(name)})
        return Listing(tuple(self._instance(name, jobs.get(name)) for name in names), self._clock())

    def create(
        self,
        spec: Spec,
        offer: Offer,  # noqa: ARG002 - the options say what is asked for
        name: str,
        env: Mapping[str, str],
        *,
        deadline: float,
    ) -> Instance:
        self._machines.tidy(())
        port = free_port(self._section.port, promised=self._machines.promised())
        order = {"port": port, "digest": spec.digest, "created_at": self._clock(), "deadline": deadline}
        home = self._machines.begin(name, order)
        start, count = _NODE_PORTS
        text = script(self._section, port=port, node_port=start + secrets.randbelow(count))
        key = dict.fromkeys(self._section.api_key_env, env["VLLM_API_KEY"])
        environ = {**self._environ, **self._section.env, **spec.env, **key}
        try:
            self._submit(self._options(name, home, deadline), text, environ)
        except BadSpec:  # there is certainly no job
            self._machines.end(name)
            raise
        (home / "submitted").touch(mode=0o600)
        return self._instance(name, Job("", "PENDING", "just submitted"))

    def destroy(self, instance_id: str) -> bool:
        known = self._machines.path(instance_id).is_dir() or instance_id in self._jobs()
        done = self._ask(["scancel", f"--user={os.geteuid()}", f"--name={instance_id}"])
        if done.code != 0:
            raise ProviderUnavailable(f"scancel failed: {_words(done)}")
        return self._machines.end(instance_id) or known

    def tail(self, instance_id: str, lines: int) -> Sequence[str]:
        """The last lines of the job's output, where the cluster shares our directory."""
        return self._machines.tail(instance_id, lines)

    def close(self) -> None:
        """There is nothing to close."""

    # --- submitting
    def check(self) -> None:
        """Raises BadSpec: SLURM's commands are not on this machine."""
        path = self._environ.get("PATH")
        missing = [program for program in _PROGRAMS if not shutil.which(program, path=path)]
        if missing:
            raise BadSpec(
                f"There is no program {', '.join(missing)} in PATH ({path}).",
                hint="Is this a SLURM login node?",
            )

    def _options(self, name: str, home: Path, deadline: float) -> Sequence[str]:
        minutes = max(1, math.ceil((deadline - self._clock()) / 60))
        log = str(home / "log").replace("%", "%%")
        return [
            "sbatch",
            "--parsable",
            f"--job-name={name}",
            f"--time={minutes}",
            "--dependency=singleton",
            "--no-requeue",
            f"--chdir={self._cwd}",
            f"--output={log}",
            f"--error={log}",
            "--open-mode=append",
            *self._section.job_options,  # last, so that a shorter --time of the user's counts
        ]

    def _submit(self, argv: Sequence[str], text: str, environ: Mapping[str, str]) -> None:
        """Raises BadSpec or ProviderUnavailable when there is certainly no job, else CreateUnknown."""
        try:
            done = self._run(argv, text, environ)
        except TimeoutError:
            raise CreateUnknown(
                f"sbatch said nothing for {QUICK_SECONDS:.0f} s: is SLURM's controller (slurmctld) up?"
            ) from None
        except OSError as e:
            raise BadSpec(
                f"sbatch cannot be run: {e.strerror}.", hint="Is this a SLURM login node?"
            ) from None
        if done.code == 0:
            return
        words = _words(done)
        if any(sign in words.lower() for sign in _UNCLEAR):
            raise CreateUnknown(f"sbatch got no clear answer: {words}")
        raise BadSpec(f"SLURM refuses the job: {words}", hint="Correct `slurm.options` (or `slurm.srun`).")

    # --- looking
    def _ask(self, argv: Sequence[str]) -> Done:
        try:
            return self._run(argv, "", self._environ)
        except TimeoutError:
            raise ProviderUnavailable(
                f"{argv[0]} said nothing for {QUICK_SECONDS:.0f} s: SLURM's controller (slurmctld) does not answer.",
                retry_after=30,
            ) from None
        except OSError as e:
            raise ProviderUnavailable(f"{argv[0]} cannot be run: {e.strerror}.", retry_after=60) from None

    def _jobs(self) -> dict[str, Job]:
        """Jobs by name, those that ended a moment ago included."""
        done = self._ask(
            ["squeue", "--noheader", "--states=all", f"--user={os.geteuid()}", f"--format={_FIELDS}"]
        )
        if done.code != 0:
            raise ProviderUnavailable(
                f"squeue failed: {_words(done)}.",
                hint="Is SLURM's controller (slurmctld) up?",
                retry_after=30,
            )
        found = {}
        for line in done.out.splitlines():
            fields = line.split("|", 3)
            if len(fields) == 4:
                found[fields[2]] = Job(fields[0], fields[1], one_line(fields[3], 100))
        return found

    def _was_submitted(self, name: str) -> bool:
        return (self._machines.path(name) / "submitted").exists()

    def _instance(self, name: str, job: Job | None) -> Instance:
        order = self._machines.order(name)
        port = order.get("port")
        running = job is not None and job.state in _ALIVE
        return Instance(
            id=name,
            name=name,
            observed=_observed(job),
            usd_per_hour=0.0,
            base_url=f"http://{HOST}:{port}" if port else None,
            container_up=running,
            created_at=order.get("created_at"),
            gpu=f"SLURM job {job.id}".strip() if job else "SLURM",
            detail=self._detail(name, job, port),
            switch_at=order.get("deadline"),
            digest=str(order.get("digest") or ""),
            key_optional=not self._section.require_key,
            ping_path=self._section.ping_path or "",
        )

    def _detail(self, name: str, job: Job | None, port: object) -> str:
        if job is not None and job.state in _WAITING:
            return f"the job is {job.state.lower()} (reason: {job.reason})"
        if job is not None and job.state in _ALIVE:
            return ""
        state = job.state.lower() if job else "over, and SLURM has forgotten it"
        left = isinstance(port, int) and not is_free(port)
        tunnel = f"; a tunnel of it, or another program, still holds port {port}" if left else ""
        return f"the job is {state}{tunnel}{brief(self.tail(name, 3))}"


def run_bounded(argv: Sequence[str], text: str, environ: Mapping[str, str]) -> Done:
    """Run one of SLURM's commands; see :data:`Runner`."""
    try:
        done = subprocess.run(
            argv,
            input=text,
            env=environ,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=QUICK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return Done(done.returncode, done.stdout, done.stderr)


def _observed(job: Job | None) -> Observed:
    if job is None:
        return Observed.EXITED
    if job.state in _WAITING:
        return Observed.STARTING
    return Observed.RUNNING if job.state in _ALIVE else Observed.EXITED


def _words(done: Done) -> str:
    return one_line(" ".join((done.err or done.out).split()), 300) or f"exit code {done.code}"
