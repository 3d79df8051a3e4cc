"""RunPod's serverless side in memory: limits that change late or unheard, counts that are refused, broken workers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpod.backends import Backend
from llmpod.backends.machines import Machines
from llmpod.backends.runpod_api import RunpodApi
from llmpod.backends.runpod_endpoint import Load
from llmpod.backends.runpod_serverless import ServerlessEndpoint
from llmpod.backends.runpod_serverless_probe import ServerlessProber
from llmpod.backends.several import Several
from llmpod.config import ServerlessSection
from llmpod.errors import CreateUnknown, NoCapacity, NotFound, ProviderUnavailable
from llmpod.lifecycle import match
from llmpod.model import Health, Instance, Observed, Phase
from llmpod.secret import Secret
from tests.lifecycle.provider import MAX_LAG, Clock, Faults, Provider

ID = "ep4m7x2k9q"
NEIGHBOUR = "ep0neighbor"
HEALTH = f"https://api.runpod.ai/v2/{ID}/health"
_OPENS_LATE = ("unknown-late",)


@dataclass
class Tap(Provider):
    """One endpoint. ``limits`` are the moments from which on it has so many workers at most; later ones count."""

    directory: Path = Path()
    limits: list[tuple[float, int]] = field(default_factory=lambda: [(0.0, 0)])
    drained_at: float = 0.0
    woken_at: float | None = None
    broken: bool = False
    requests: int = 0
    id: str = ID
    faults = Faults(
        create=("429", "400", "unknown-made", "unknown-not-made", "unknown-late"),
        list=("error", "no workers"),
        delete=("429", "unknown-made", "unknown-not-made"),
        observed=(Observed.BROKEN, None),
    )

    @classmethod
    def made(cls, clock: Clock, directory: Path) -> "Tap":
        return cls(clock, directory=directory)

    @property
    def machines(self) -> Machines:
        return Machines(self.directory / "machines")

    @property
    def endpoint(self) -> ServerlessEndpoint:
        section = ServerlessSection(endpoint_id=self.id, api_key_file=self.directory / "key")
        others = {ID, NEIGHBOUR} - {self.id}
        return ServerlessEndpoint(
            section, FakeApi(self), self.machines, guard=lambda: None, of_others=others, clock=self.clock
        )

    @property
    def backend(self) -> Backend:
        return self.endpoint

    def alive(self) -> list[str]:
        return [self.id] if self.most() > 0 or self.clock() < self.drained_at else []

    def is_ready(self, instance_id: str) -> bool:
        awake = self.woken_at is not None and self.clock() >= self.woken_at + self.load_seconds
        return awake and self.most() > 0 and not self.broken

    def become(self, observed: Observed) -> None:
        self.broken = observed is Observed.BROKEN

    def lose(self) -> None:
        """A person parks it in the console."""
        self.limit(0, self.clock())

    def check(self, seen: Instance, api_key: Secret | None, served_name: str, *, was_ready: bool) -> Health:
        prober = ServerlessProber(
            self.endpoint, self.machines, Asked(self), looked=lambda _url, _key: self.load(), clock=self.clock
        )
        return prober.check(seen, api_key, served_name, was_ready=was_ready)

    # --- what it is
    def most(self, lag: float = 0.0) -> int:
        """Its limit now, or as it is seen with a lag."""
        due = [entry for entry in self.limits if entry[0] + lag <= self.clock()]
        return max(due, key=lambda entry: entry[0])[1] if due else 0

    def limit(self, most: int, at: float) -> None:
        if most == 0 and self.most() > 0:
            self.drained_at = at + self.delete_lag
        if most == 0:
            self.woken_at, self.broken = None, False
        self.limits.append((at, most))

    def load(self) -> Load:
        if self.broken:
            return Load(unhealthy=1)
        if self.is_ready(self.id):
            return Load(idle=1)
        return Load(initializing=1, queued=1) if self.woken_at is not None else Load()


@dataclass
class Neighbours(Tap):
    """Beside that of another model, which nobody wants: whatever happens here, that one is never opened."""

    neighbour: Tap | None = None

    @classmethod
    def made(cls, clock: Clock, directory: Path) -> "Neighbours":
        return cls(clock, directory=directory, neighbour=Tap(clock, directory=directory, id=NEIGHBOUR))

    @property
    def backend(self) -> Backend:
        assert self.neighbour is not None
        models = {"default": self.endpoint, "neighbour": self.neighbour.endpoint}
        return Several(models, lambda name: match.owner(name, models))

    def alive(self) -> list[str]:
        assert self.neighbour is not None
        return [*super().alive(), *self.neighbour.alive()]


@dataclass
class Asked:
    """A real request to it, which wakes it."""

    world: Tap

    def check(self, seen: Instance, api_key: Secret | None, served_name: str, *, was_ready: bool) -> Health:
        world = self.world
        world.requests += 1
        if world.is_ready(seen.id):
            return Health(Phase.READY)
        if world.most() > 0 and world.woken_at is None:
            world.woken_at = world.clock()
        return Health(Phase.BOOTING, "no answer in time")


class FakeApi(RunpodApi):
    """The API, as the backend meets it."""

    def __init__(self, world: Tap) -> None:
        super().__init__("https://api.runpod.io", Secret("rpa_of-the-account", "a test"))
        self._world = world

    def get(self, path: str, **query: str) -> dict[str, Any]:
        world = self._world
        fault = world.list_fault()
        if fault == "error" or (fault == "no workers" and path.endswith("/workers")):
            raise ProviderUnavailable("500")
        self.said_at = float(int(world.clock()))
        if not path.startswith(f"/v2/serverless/{world.id}"):
            raise NotFound("404")
        return self._workers() if path.endswith("/workers") else _endpoint(world.id, world.most(world.lag))

    def change(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        world, most = self._world, int(body["workers"]["max"])
        assert path == f"/v2/serverless/{world.id}"
        fault = world.create_fault() if most else world.delete_fault()
        if fault == "429":
            raise ProviderUnavailable("too many", retry_after=12)
        if fault == "400":
            raise NoCapacity("quota")
        if fault != "unknown-not-made":
            world.limit(most, world.clock() + (MAX_LAG if fault in _OPENS_LATE else 0.0))
        if fault.startswith("unknown"):
            raise CreateUnknown("504")
        return _endpoint(world.id, most)

    def _workers(self) -> dict[str, Any]:
        world = self._world
        runs = world.woken_at is not None or world.clock() < world.drained_at
        return {"workers": [{"id": "w", "status": "RUNNING"}] if runs else [], "summary": {}}


def _endpoint(id_: str, most: int) -> dict[str, Any]:
    return {
        "id": id_,
        "type": "QUEUE",
        "requestUrls": {"health": HEALTH},
        "workers": {"min": 0, "max": most, "idleTimeout": 5},
    }
