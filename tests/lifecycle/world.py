"""One installation, its provider and the time, in memory but for the files: whole lives in milliseconds.

A kill is an exception that nothing of ours may catch. Real processes and real kills are in tests/sweep.
"""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from llmpod.config import Budget
from llmpod.errors import StateError
from llmpod.lifecycle.act import Actor, Managed
from llmpod.lifecycle.decide import Policy
from llmpod.lifecycle.ledger import FILE_NAME, Ledger
from llmpod.lifecycle.orders import PROXY
from llmpod.lifecycle.purse import Purse
from llmpod.lifecycle.reconcile import Reconciler
from llmpod.lifecycle.report import Report
from llmpod.lifecycle.store import Store
from llmpod.lifecycle.wish import Terms, latest
from llmpod.model import Direction, Offer, Phase, Record, Spec, Usage, Want
from tests.lifecycle.cloud import Cloud
from tests.lifecycle.provider import Clock, Provider

MODEL = "default"
GRACE = 120.0
RUNTIME = 3600.0
OVERRUN_SECONDS = 60.0
OFFERS = (Offer("NVIDIA L4", usd_per_hour=0.49), Offer("NVIDIA A40", usd_per_hour=0.79))
SPEC = Spec("org/m", "org/m", "vllm/vllm-openai:v0.29.0", ("org/m",), 8000, 60, OFFERS, digest="d")
POLICY = Policy(
    runtime_seconds=RUNTIME,
    startup_timeout_seconds=1200,
    max_restarts=2,
    restart_backoff_seconds=30,
    unhealthy_after=3,
    restart_vanished=False,
    create_grace_seconds=GRACE,
    digest="d",
)
MANAGED = Managed("d", SPEC.model, SPEC.served_name, POLICY, lambda _refused: SPEC)


class Crash(BaseException):
    """SIGKILL of the manager, as far as one process can play it: nothing of ours may catch it."""


@contextmanager
def no_space() -> Iterator[None]:
    """No file can grow by a byte, as on a full disk; the kernel says so to every write of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@dataclass
class World:
    """The manager with real files, its cloud and the time.

    Args:
        directory: for the files.
        now: the true time, which is the provider's.
        wrong_by: by how many seconds this machine's clock is ahead of it.
        disk_is_full: whether nothing can be written.
        budget: the limits, or None.
        digest: names the configuration.
        provider: makes the provider, from the true time and a directory for files.
        terms: when requests start the model.
    """

    directory: Path
    now: float = 1_000_000.0
    wrong_by: float = 0.0
    disk_is_full: bool = False
    budget: Budget | None = None
    digest: str = "d"
    provider: Callable[[Clock, Path], Provider] = Cloud.made
    terms: Terms = field(default_factory=Terms)

    def __post_init__(self) -> None:
        self.cloud = self.provider(lambda: self.now, self.directory)
        self.store = Store(self.directory / "pod_state.json")
        self.passes = 0
        self._at_effect: dict[int, Callable[[], None]] = {}
        self._effects = 0

    # --- the manager
    def pass_(
        self, *, crash_at: int | None = None, meanwhile: dict[int, Direction] | None = None
    ) -> Report | None:
        """One pass; None when it was killed.

        Args:
            crash_at: kills it after so many effects.
            meanwhile: what a person orders from elsewhere after so many effects.
        """
        self.passes += 1
        self._effects = 0
        self._at_effect = {n: partial(self.order, d) for n, d in (meanwhile or {}).items()}
        if crash_at is not None:
            self._at_effect[crash_at] = _crash
        try:
            return self._full() if self.disk_is_full else self._run()
        except Crash:
            return None

    def _full(self) -> Report:
        with no_space():
            return self._run()

    def _run(self) -> Report:
        purse = Purse(Ledger(self.store.directory / FILE_NAME), self.budget, most_usd_per_hour=None)
        actor = Actor(
            self.store,
            self.cloud.backend,
            self.cloud,
            purse=purse,
            clock=lambda: self.now + self.wrong_by,
            uptime=lambda: ("this boot", self.now),
            point=self._point,
        )
        with self.store.lock():
            return Reconciler(actor, {MODEL: self._managed()}).run()

    def _managed(self) -> Managed:
        spec, policy = replace(SPEC, digest=self.digest), replace(POLICY, digest=self.digest)
        return replace(
            MANAGED, digest=self.digest, policy=policy, draw=lambda _refused: spec, terms=self.terms
        )

    def _point(self, _name: str) -> None:
        happens = self._at_effect.get(self._effects)
        self._effects += 1
        if happens is not None:
            happens()

    # --- people and time
    def order(self, direction: Direction) -> None:
        """A person's word, a second after the last; on a full disk they are told that it was not heard."""
        self.now += 1.0
        heard = latest(self.store.usage().get(MODEL, Usage()))  # as the command line gives it
        want = Want(direction, at=self.now + self.wrong_by, by="test", heard=heard)
        with suppress(StateError):
            self.store.order({MODEL: want, PROXY: want})

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.cloud.calm()
        self.disk_is_full = False
        self.wrong_by = 0.0

    def settle(
        self, *, passes: int = 60, step: float = 10.0, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Quiet times: no more faults, the clock runs, cron ticks; ends early when ``until`` is true."""
        self.calm()
        for _ in range(passes):
            self.pass_()
            if until():
                return
            self.now += step

    # --- looking
    @property
    def record(self) -> Record:
        """What the state file says; a blank one when it says nothing."""
        try:
            return self.store.load().record(MODEL)
        except StateError:
            return Record()

    @property
    def phase(self) -> Phase:
        return self.store.load().record(MODEL).phase

    def is_up(self) -> bool:
        return len(self.cloud.alive()) == 1 and self.record.phase is Phase.READY

    def knows_its_pods(self) -> bool:
        """Whether the ids of all that lives are written down, in the state and in the ledger."""
        entries = Ledger(self.store.directory / FILE_NAME).read().entries
        alive = set(self.cloud.alive())
        return alive <= {self.record.instance_id} and alive <= {e.pod for e in entries if e.is_open}

    def gave_up(self) -> bool:
        """Nothing more happens until a person orders: the pod seemed to have been ended by one."""
        return self.cloud.alive() == [] and self.record.phase is Phase.FAILED and not self.record.next_try_at

    def is_down(self) -> bool:
        return self.cloud.alive() == [] and self.record.phase is Phase.STOPPED


def _crash() -> None:
    raise Crash
