"""A SLURM controller in memory: jobs that wait, run and end; commands that hang, fail, or lose their answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmpod.backends.machines import Machines
from llmpod.backends.slurm import Done, SlurmJobs
from llmpod.config import SlurmSection
from llmpod.model import Observed
from tests.lifecycle.provider import Clock, Faults, Provider

FORGETS_SECONDS = 300.0


@dataclass
class Work:
    """One job; moments are of the cluster's clock."""

    name: str
    starts: float
    limit: float
    state: str = "RUNNING"
    ended: float | None = None


@dataclass
class Cluster(Provider):
    """The jobs of one user."""

    directory: Path = Path()
    jobs: dict[str, Work] = field(default_factory=dict)
    faults = Faults(
        create=("hangs-made", "hangs-not-made", "refused", "timed-out-made", "no sbatch"),
        list=("hangs", "fails"),
        delete=("hangs", "hangs-done", "fails"),
        observed=(Observed.EXITED, None),
    )

    @classmethod
    def made(cls, clock: Clock, directory: Path) -> "Cluster":
        return cls(clock, directory=directory)

    @property
    def backend(self) -> SlurmJobs:
        section = SlurmSection(command=("serve",), loopback_user="me", loopback_host="front")
        machines = Machines(self.directory / "machines")
        return SlurmJobs(section, machines, cwd=self.directory, environ={}, run=self._run, clock=self.clock)

    def alive(self) -> list[str]:
        self._pass_time()
        return [job.name for job in self.jobs.values() if job.ended is None]

    def is_ready(self, instance_id: str) -> bool:
        found = [job for job in self.jobs.values() if job.name == instance_id and job.ended is None]
        return any(self.clock() >= job.starts + self.load_seconds for job in found)

    def become(self, observed: Observed) -> None:
        if observed is Observed.EXITED:
            self._end("FAILED")

    def lose(self) -> None:
        """The controller has lost its state."""
        self.jobs.clear()

    def _end(self, state: str, name: str = "") -> None:
        for job in self.jobs.values():
            if job.ended is None and name in ("", job.name):
                job.state, job.ended = state, self.clock()

    def _pass_time(self) -> None:
        for job in self.jobs.values():
            if job.ended is None and self.clock() >= job.limit:
                job.state = "CANCELLED" if job.state == "COMPLETING" else "TIMEOUT"
                job.ended = self.clock()

    # --- its commands
    def _run(self, argv: Sequence[str], text: str, environ: Mapping[str, str]) -> Done:
        self._pass_time()
        given = dict(word.removeprefix("--").partition("=")[::2] for word in argv[1:])
        return {"sbatch": self._sbatch, "squeue": self._squeue, "scancel": self._scancel}[argv[0]](given)

    def _sbatch(self, given: Mapping[str, str]) -> Done:
        fault = self.create_fault()
        if fault == "no sbatch":
            raise FileNotFoundError(2, "No such file or directory")
        if fault == "hangs-not-made":
            raise TimeoutError
        if fault == "refused":
            return Done(1, "", "sbatch: error: Batch job submission failed: Invalid generic resource (gres)")
        name, starts = given["job-name"], self.clock() + self.lag
        assert all(job.name != name for job in self.jobs.values()), "a name was used twice"
        self.jobs[str(len(self.jobs) + 1)] = Work(name, starts, starts + 60 * int(given["time"]))
        if fault == "hangs-made":
            raise TimeoutError
        if fault == "timed-out-made":
            return Done(1, "", "sbatch: error: Socket timed out on send/recv operation")
        return Done(0, f"{len(self.jobs)}\n", "")

    def _squeue(self, given: Mapping[str, str]) -> Done:
        fault = self.list_fault()
        if fault == "hangs":
            raise TimeoutError
        if fault == "fails":
            return Done(1, "", "slurm_load_jobs error: Unable to contact slurm controller")
        now = self.clock()
        shown = [
            f"{number}|{'PENDING' if now < job.starts and job.ended is None else job.state}|{job.name}|Priority"
            for number, job in self.jobs.items()
            if job.ended is None or now - job.ended < FORGETS_SECONDS
        ]
        return Done(0, "\n".join(shown), "")

    def _scancel(self, given: Mapping[str, str]) -> Done:
        fault = self.delete_fault()
        if fault == "hangs":
            raise TimeoutError
        if fault == "fails":
            return Done(1, "", "scancel: error: Unable to contact slurm controller")
        for job in self.jobs.values():
            if job.ended is None and job.name == given["name"] and job.state != "COMPLETING":
                job.state, job.limit = "COMPLETING", min(job.limit, self.clock() + self.delete_lag)
        self._pass_time()
        if fault == "hangs-done":
            raise TimeoutError
        return Done(0, "", "")
