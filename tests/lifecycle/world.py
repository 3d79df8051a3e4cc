"""A cloud in memory that behaves as badly as a real one: lag, unclear creates, lost deletes, crashes of ours.

It is a fake of the provider, not of our code: the manager under test is the real one, with real files.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from llmpod.config import Budget
from llmpod.errors import CreateUnknown, NoCapacity, ProviderUnavailable
from llmpod.lifecycle.act import Actor, Managed
from llmpod.lifecycle.decide import Policy
from llmpod.lifecycle.ledger import FILE_NAME, Ledger
from llmpod.lifecycle.purse import Purse
from llmpod.lifecycle.reconcile import PROXY, Reconciler
from llmpod.lifecycle.report import Report
from llmpod.lifecycle.store import Store
from llmpod.model import Direction, Health, Instance, Listing, Observed, Offer, Phase, Spec, Want

MODEL = "default"
GRACE = 120.0
MAX_LAG = 40.0
RUNTIME = 3600.0
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
)
MANAGED = Managed("d", SPEC.model, SPEC.served_name, POLICY, lambda _refused: SPEC)


class Crash(BaseException):
    """SIGKILL of the manager, as far as one process can play it: nothing of ours may catch it."""


@dataclass
class Pod:
    name: str
    gpu: str
    born: float
    listed_from: float
    ready_at: float
    died: float | None = None
    gone_at: float | None = None
    observed: Observed = Observed.RUNNING


@dataclass
class Cloud:
    """The provider. ``create_faults`` and ``list_faults`` are consumed one a call."""

    clock: Callable[[], float]
    pods: dict[str, Pod] = field(default_factory=dict)
    create_faults: list[str] = field(default_factory=list)
    list_faults: list[str] = field(default_factory=list)
    delete_faults: list[str] = field(default_factory=list)
    lag: float = 0.0
    delete_lag: float = 0.0
    load_seconds: float = 60.0
    creates: int = 0
    most_alive: int = 0

    def alive(self) -> list[str]:
        return [i for i, pod in self.pods.items() if pod.born <= self.clock() and not self._dead(pod)]

    def _dead(self, pod: Pod) -> bool:
        return pod.died is not None and pod.died <= self.clock()

    def list(self, expect: Collection[str]) -> Listing:
        fault = self.list_faults.pop(0) if self.list_faults else ""
        if fault == "error":
            raise ProviderUnavailable("500")
        seen = [self._instance(i, pod) for i, pod in self.pods.items() if self._visible(pod)]
        return Listing(() if fault == "empty" and not expect else tuple(seen))

    def _visible(self, pod: Pod) -> bool:
        now = self.clock()
        shown = pod.born <= now and pod.listed_from <= now
        return shown and not (pod.gone_at is not None and pod.gone_at <= now)

    def _instance(self, pod_id: str, pod: Pod) -> Instance:
        return Instance(
            pod_id,
            pod.name,
            pod.observed,
            0.49,
            f"http://{pod_id}",
            container_up=True,
            created_at=pod.born,
            gpu=pod.gpu,
            gpu_count=1,
        )

    def create(
        self, spec: Spec, offer: Offer, name: str, env: Mapping[str, str], *, deadline: float
    ) -> Instance:
        assert all(pod.name != name for pod in self.pods.values()), "a name was used twice"
        assert env["VLLM_API_KEY"]
        fault = self.create_faults.pop(0) if self.create_faults else ""
        if fault == "capacity":
            raise NoCapacity("no longer any instances available")
        if fault == "429":
            raise ProviderUnavailable("rate limit", retry_after=12)
        if fault == "unknown-not-made":
            raise CreateUnknown("502")
        self.creates += 1
        delay = MAX_LAG if fault == "unknown-late" else 0.0
        born = self.clock() + delay
        pod = Pod(name, offer.gpu, born, born + self.lag, born + self.load_seconds)
        pod_id = f"pod{self.creates}"
        self.pods[pod_id] = pod
        self.most_alive = max(self.most_alive, len(self.alive()))
        if fault.startswith("unknown"):
            raise CreateUnknown("500 after it was made")
        return self._instance(pod_id, pod)

    def destroy(self, instance_id: str) -> bool:
        fault = self.delete_faults.pop(0) if self.delete_faults else ""
        if fault == "error":
            raise ProviderUnavailable("500")
        pod = self.pods.get(instance_id)
        if pod is None or self._dead(pod) or not self._visible(pod):
            return False
        pod.died = self.clock()
        pod.gone_at = self.clock() + self.delete_lag
        if fault == "executed-but-error":
            raise ProviderUnavailable("504 after it was done")
        return True

    def close(self) -> None:
        """Nothing to close."""

    def check(self, seen: Instance, api_key: str, served_name: str, *, was_ready: bool) -> Health:
        """The model server of a pod, as the prober meets it."""
        pod = self.pods[seen.id]
        if self._dead(pod) or self.clock() < pod.ready_at:
            return Health(Phase.BOOTING, "no answer")
        return Health(Phase.READY)


@dataclass
class World:
    """The manager with real files, its cloud and one clock. ``crash_at`` kills the n-th effect of the next pass."""

    directory: Path
    now: float = 1_000_000.0
    crash_at: int | None = None
    effects: int = 0
    budget: Budget | None = None

    def __post_init__(self) -> None:
        self.cloud = Cloud(lambda: self.now)
        self.store = Store(self.directory / "pod_state.json")

    def _point(self, _name: str) -> None:
        self.effects += 1
        if self.crash_at is not None and self.effects > self.crash_at:
            raise Crash

    def pass_(self, *, crash_at: int | None = None) -> Report | None:
        """One pass; None when it was killed."""
        self.crash_at, self.effects = crash_at, 0
        purse = Purse(Ledger(self.store.directory / FILE_NAME), self.budget, most_usd_per_hour=None)
        actor = Actor(
            self.store, self.cloud, self.cloud, purse=purse, clock=lambda: self.now, point=self._point
        )
        try:
            with self.store.lock():
                return Reconciler(actor, {MODEL: MANAGED}).run()
        except Crash:
            return None
        finally:
            self.crash_at = None

    def order(self, direction: Direction) -> None:
        want = Want(direction, at=self.now, by="test")
        self.store.order({MODEL: want, PROXY: want})

    def settle(self, *, passes: int = 60, step: float = 10.0) -> None:
        """Quiet times: no more faults, the clock runs, cron ticks."""
        self.cloud.create_faults, self.cloud.list_faults, self.cloud.delete_faults = [], [], []
        for _ in range(passes):
            self.pass_()
            self.now += step

    @property
    def phase(self) -> Phase:
        return self.store.load().record(MODEL).phase

    def kill_pod(self) -> None:
        """The provider loses the pod."""
        for pod_id in self.cloud.alive():
            pod = self.cloud.pods[pod_id]
            self.cloud.pods[pod_id] = replace(pod, died=self.now, gone_at=self.now)
