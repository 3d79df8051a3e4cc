"""A provider in memory that behaves as badly as a real one: lag, unclear creates, lost deletes, false answers.

Not a fake of our code: the manager under test is the real one, with real files.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from llmpod.errors import CreateUnknown, NoCapacity, ProviderUnavailable
from llmpod.model import Instance, Listing, Observed, Offer, Spec
from tests.lifecycle.provider import MAX_LAG, Clock, Faults, Provider


@dataclass
class Pod:
    """One machine; moments are seconds of the cloud's clock."""

    name: str
    gpu: str
    born: float
    listed_from: float
    ready_at: float
    died: float | None = None
    gone_at: float | None = None
    observed: Observed = Observed.RUNNING


@dataclass
class Cloud(Provider):
    """The account. Faults are consumed one a call.

    Faults of a list: ``error``; ``empty``, which a look-up by id corrects; ``blind``, where that fails, too. What the
    others mean stands where they are met.
    """

    pods: dict[str, Pod] = field(default_factory=dict)
    count: int = 0
    faults = Faults(
        create=("capacity", "429", "unknown-not-made", "unknown-made", "unknown-late", "phantom"),
        list=("error", "empty", "blind"),
        delete=("error", "executed-but-error", "not found"),
        moves=True,
        renames=True,
    )

    @classmethod
    def made(cls, clock: Clock, _directory: Path) -> "Cloud":
        """It needs no files."""
        return cls(clock)

    @property
    def backend(self) -> "Cloud":
        """It is its own."""
        return self

    def alive(self) -> list[str]:
        """The ids of what costs money now."""
        return [i for i, pod in self.pods.items() if pod.born <= self.clock() and not self._dead(pod)]

    # --- as a backend
    def list(self, expect: Collection[str]) -> Listing:
        fault = self.list_fault()
        if fault == "error":
            raise ProviderUnavailable("500")
        shown = {i: self._instance(i, pod) for i, pod in self.pods.items() if self._visible(pod)}
        if fault in ("empty", "blind"):
            shown = {i: seen for i, seen in shown.items() if i in expect and fault == "empty"}
        return Listing(tuple(shown.values()), float(int(self.clock())))

    def create(
        self, spec: Spec, offer: Offer, name: str, env: Mapping[str, str], *, deadline: float
    ) -> Instance:
        assert all(pod.name != name for pod in self.pods.values()), "a name was used twice"
        assert env["VLLM_API_KEY"]
        assert deadline > self.clock(), "armed with a deadline that is past"
        fault = self.create_fault()
        if fault == "capacity":
            raise NoCapacity("no longer any instances available")
        if fault == "429":
            raise ProviderUnavailable("rate limit", retry_after=12)
        if fault == "unknown-not-made":
            raise CreateUnknown("502")
        born = self.clock() + (MAX_LAG if fault == "unknown-late" else 0.0)
        pod = Pod(name, offer.gpu, born, born + self.lag, born + self.load_seconds)
        pod_id = self._new_id()
        if fault == "phantom":  # answered, and never there
            return self._instance(pod_id, pod)
        self.pods[pod_id] = pod
        if fault.startswith("unknown"):
            raise CreateUnknown("500 after it was made")
        return self._instance(pod_id, pod)

    def destroy(self, instance_id: str) -> bool:
        fault = self.delete_fault()
        if fault == "error":
            raise ProviderUnavailable("500")
        pod = self.pods.get(instance_id)
        if fault == "not found" or pod is None or self._dead(pod) or not self._visible(pod):
            return False
        self._end(instance_id)
        if fault == "executed-but-error":
            raise ProviderUnavailable("504 after it was done")
        return True

    def close(self) -> None:
        """Nothing to close."""

    # --- as its model servers, as the prober meets them
    def is_ready(self, instance_id: str) -> bool:
        pod = self.pods[instance_id]
        return not self._dead(pod) and self.clock() >= pod.ready_at

    # --- what else happens to machines
    def lose(self) -> None:
        """They vanish."""
        for pod_id in self.alive():
            pod = self.pods[pod_id]
            self.pods[pod_id] = replace(pod, died=self.clock(), gone_at=self.clock())

    def move(self) -> None:
        """They go on under new ids, on another host."""
        for pod_id in self.alive():
            if self._visible(self.pods[pod_id]):
                pod = self.pods.pop(pod_id)
                self.pods[self._new_id()] = replace(pod, ready_at=self.clock() + self.load_seconds)

    def rename(self) -> None:
        """A person gives them other names in the console."""
        for number, pod in enumerate(self._shown()):
            pod.name = f"my nice pod {number} {self.clock()}"

    def renamed(self) -> bool:
        """Whether something lives that does not bear our mark any more; then only its id tells whose it is."""
        return any(not self.pods[pod_id].name.startswith("llmpod-") for pod_id in self.alive())

    def become(self, observed: Observed) -> None:
        for pod in self._shown():
            pod.observed = observed

    def _shown(self) -> Iterator[Pod]:
        """A person can only do something to what the console shows."""
        return (self.pods[pod_id] for pod_id in self.alive() if self._visible(self.pods[pod_id]))

    def _new_id(self) -> str:
        self.count += 1
        return f"pod{self.count}"

    def _end(self, pod_id: str) -> None:
        pod = self.pods[pod_id]
        pod.died, pod.gone_at = self.clock(), self.clock() + self.delete_lag

    def _dead(self, pod: Pod) -> bool:
        return pod.died is not None and pod.died <= self.clock()

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
