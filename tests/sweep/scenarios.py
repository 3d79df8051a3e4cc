"""Not the sweep: in which situations a manager is killed, and what RunPod does wrong meanwhile. Two tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from llmpod.sim.launch import Simulator
from tests.support.install import Install

LAG = 40.0
RUNTIME = 3600.0


class Site(Protocol):
    """Where a scenario is prepared."""

    sim: Simulator
    install: Install

    def until_ready(self) -> None: ...

    def manage(self, *arguments: str) -> object: ...


@dataclass(frozen=True)
class Scenario:
    """A situation and the call of manage_pod.py that meets it.

    Args:
        prepare: brings it about, undisturbed.
        arguments: of the call that may be killed; the passes after it are cron's.
        pods: how many must be there when all is settled; None: as the orders file says, since a person's command
            that was killed may or may not have been heard.
        sticky: whether its end is an order that outlives everything.
        made: how many pods may ever be made in it: one more would be money for nothing.
        starts, ends: whether machines are created or deleted in it, so which faults matter.
    """

    name: str
    prepare: Callable[[Site], None]
    arguments: tuple[str, ...] = ()
    pods: int | None = 1
    sticky: bool = False
    made: int = 1
    starts: bool = True
    ends: bool = True


@dataclass(frozen=True)
class Fault:
    """What RunPod does wrong from the first call on: orders for the simulator, and its behaviour.

    Args:
        of: whether it matters at any time, at the start of machines, or at their end.
        respected: it looks as if a person had terminated the pod, so that there may be none when all is settled.
    """

    name: str
    calls: tuple[tuple[str, str, int], ...] = ()
    behavior: Mapping[str, object] = field(default_factory=dict)
    of: str = "any"
    respected: bool = False

    def concerns(self, scenario: Scenario) -> bool:
        return {"any": True, "start": scenario.starts, "end": scenario.ends}[self.of]

    def begin(self, sim: Simulator) -> None:
        sim.set(**self.behavior)
        for operation, fault, times in self.calls:
            sim.fault(operation, fault, times)


def _nothing(site: Site) -> None:
    """A first start needs no past."""


def _unclear_create(site: Site) -> None:
    site.sim.fault("create", "created_then_500")
    site.manage()


def _unclear_create_not_listed_yet(site: Site) -> None:
    site.sim.set(listing_lag_seconds=LAG)
    _unclear_create(site)


def _ready(site: Site) -> None:
    """For a while, so that no lag explains any more that a pod is not listed."""
    site.until_ready()
    site.sim.advance(600)
    site.manage()


def _state_lost(site: Site) -> None:
    _ready(site)
    (site.install.directory / "pod_state.json").unlink()


def _state_torn(site: Site) -> None:
    _ready(site)
    state = site.install.directory / "pod_state.json"
    state.write_bytes(state.read_bytes()[:100])


def _exited(site: Site) -> None:
    _ready(site)
    pod = site.install.state()["instance_id"]
    site.install.console("POST", f"/v2/pods/{pod}/action", {"action": "stop"})


def _expired(site: Site) -> None:
    _ready(site)
    site.sim.advance(RUNTIME)


def _reconfigured(site: Site) -> None:
    _ready(site)
    site.install.write(max_model_len=2048)


def _vanished(site: Site) -> None:
    _ready(site)
    site.install.console("DELETE", f"/v2/pods/{site.install.state()['instance_id']}")
    site.sim.advance(600)


def _shut_down(site: Site) -> None:
    site.until_ready()
    site.manage("--shutdown")


SCENARIOS = (
    Scenario("create", _nothing, ends=False),
    Scenario("adopt", _unclear_create, starts=False, ends=False),
    Scenario("adopt late", _unclear_create_not_listed_yet, ends=False),
    Scenario("state lost", _state_lost, starts=False, ends=False),
    Scenario("state torn", _state_torn, starts=False, ends=False),
    Scenario("restart", _exited, made=2),
    Scenario("replace", _reconfigured, made=2),
    Scenario("vanished", _vanished, pods=0, starts=False, ends=False),
    Scenario("terminate", _expired, pods=0, sticky=True, starts=False),
    Scenario("shutdown", _ready, ("--shutdown",), pods=None, starts=False),
    Scenario("shutdown of a start", _unclear_create_not_listed_yet, ("--shutdown",), pods=None),
    Scenario("up again", _shut_down, ("up",), pods=None, made=2, ends=False),
)

NO_FAULT = Fault("no fault")
FAULTS = (
    NO_FAULT,
    Fault("500 after create", (("create", "created_then_500", 1),), of="start"),
    Fault("create answer cut", (("create", "created_then_dropped", 1),), of="start"),
    Fault("create answer unreadable", (("create", "created_then_garbage", 1),), of="start"),
    Fault("create cut before", (("create", "dropped", 1),), of="start"),
    Fault("500 instead of create", (("create", "500", 1),), of="start"),
    Fault("phantom", (("create", "phantom", 1),), of="start", respected=True),
    Fault("429 at create", (("create", "429", 1),), of="start"),
    Fault("no capacity", (("create", "capacity", 2),), of="start"),
    Fault("listing lag", behavior={"listing_lag_seconds": LAG}, of="start"),
    Fault(
        "500 after create, listing lag",
        (("create", "created_then_500", 1),),
        {"listing_lag_seconds": LAG},
        of="start",
    ),
    Fault("empty list", (("list", "empty", 1),)),
    Fault("empty list and 404", (("list", "empty", 1), ("get", "404", 1))),
    Fault(
        "404 at delete, then an empty list and 404",  # "slow=0" is no fault: the first list is as it should be
        (("list", "slow=0", 1), ("list", "empty", 1), ("get", "404", 1), ("delete", "404", 1)),
        of="end",
    ),
    Fault("list 500", (("list", "500", 2),)),
    Fault("list 429", (("list", "429", 2),)),
    Fault("500 after delete", (("delete", "deleted_then_500", 1),), of="end"),
    Fault("delete answer cut", (("delete", "deleted_then_dropped", 1),), of="end"),
    Fault("500 instead of delete", (("delete", "500", 2),), of="end"),
    Fault("404 instead of delete", (("delete", "404", 1),), of="end"),
    Fault("429 at delete", (("delete", "429", 2),), of="end"),
    Fault("deleted but listed", behavior={"delete_lag_seconds": LAG}, of="end"),
    Fault(
        "deleted but listed and found", behavior={"delete_lag_seconds": LAG, "delete_lag_get": True}, of="end"
    ),
    Fault("all cut", (("any", "dropped", 2),)),
)
