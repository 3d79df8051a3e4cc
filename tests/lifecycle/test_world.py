"""G19: random worlds. Whatever is killed, delayed, answered falsely, lost, changed or moved, there is never a second
pod, none outlives its deadline under a manager that runs, and calm brings what was ordered.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llmpod.lifecycle.wish import Terms
from llmpod.model import Direction, Observed, Phase
from tests.lifecycle.cloud import Cloud
from tests.lifecycle.cluster import Cluster
from tests.lifecycle.engine import Boxes, Named
from tests.lifecycle.local import Elsewhere, Processes
from tests.lifecycle.provider import MAX_LAG, Clock, Provider
from tests.lifecycle.serverless import Neighbours
from tests.lifecycle.world import MODEL, OVERRUN_SECONDS, World
from tests.support.ramdisk import quick_directory

PASS_SECONDS = 300.0
CRON_SECONDS = 30.0
LONG_STEPS = 100_000
OTHERS: Sequence[type[Provider]] = (Processes, Elsewhere, Boxes, Named, Cluster, Neighbours)
EFFECTS = st.integers(0, 16)


class LifecycleMachine(RuleBasedStateMachine):
    """Manager x provider x people x files x clock. Passes may be killed at any effect."""

    steps = 0
    passes = 0
    provider: ClassVar[Callable[[Clock, Path], Provider]] = Cloud.made
    terms: ClassVar[Terms] = Terms()

    @initialize(lag=st.sampled_from([0.0, 5.0, MAX_LAG]), delete_lag=st.sampled_from([0.0, 15.0]))
    def begin(self, lag: float, delete_lag: float) -> None:
        self.directory = quick_directory()
        self.world = World(Path(self.directory.name), provider=type(self).provider, terms=type(self).terms)
        self.world.cloud.lag, self.world.cloud.delete_lag = lag, delete_lag

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.converge()
            finally:
                type(self).passes += self.world.passes
                self.directory.cleanup()

    # --- the manager
    @rule(crash_at=st.none() | EFFECTS)
    def run_pass(self, crash_at: int | None) -> None:
        self.world.pass_(crash_at=crash_at)

    @rule(at=EFFECTS, direction=st.sampled_from(list(Direction)), crash_at=st.none() | EFFECTS)
    def run_pass_while_somebody_orders(self, at: int, direction: Direction, crash_at: int | None) -> None:
        self.world.pass_(crash_at=crash_at, meanwhile={at: direction})

    @rule(passes=st.integers(3, 8))
    def cron_ticks_undisturbed(self, passes: int) -> None:
        """Then nothing lives past its deadline by more than a minute."""
        world = self.world
        world.calm()
        for n in range(passes):
            world.pass_()
            if n * CRON_SECONDS >= OVERRUN_SECONDS and (end := world.record.deadline) is not None:
                assert world.now <= end + OVERRUN_SECONDS or not world.cloud.alive(), "past its deadline"
            world.now += CRON_SECONDS

    # --- time
    @rule(seconds=st.sampled_from([1.0, 7.0, 31.0, 121.0, 400.0, 3000.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(by=st.sampled_from([0.0, -3600.0, 3600.0, -86400.0, 86400.0]))
    def the_clock_is_set(self, by: float) -> None:
        self.world.wrong_by = by

    # --- people
    @rule(direction=st.sampled_from(list(Direction)))
    def order(self, direction: Direction) -> None:
        self.world.order(direction)

    @rule(digest=st.sampled_from(["d", "e"]))
    def the_configuration_changes(self, digest: str) -> None:
        self.world.digest = digest

    @precondition(lambda self: self.world.cloud.faults.renames and self.world.knows_its_pods())
    @rule()
    def the_pod_is_renamed(self) -> None:
        """By somebody who saw it in the console a moment later than we did: a nameless stranger would stay one."""
        self.world.cloud.rename()

    # --- the provider
    @rule(data=st.data())
    def creates_go_wrong(self, data: st.DataObject) -> None:
        self.world.cloud.create_faults = _drawn(data, self.world.cloud.faults.create)

    @rule(data=st.data())
    def listings_go_wrong(self, data: st.DataObject) -> None:
        self.world.cloud.list_faults = _drawn(data, self.world.cloud.faults.list)

    @rule(data=st.data())
    def deletes_go_wrong(self, data: st.DataObject) -> None:
        self.world.cloud.delete_faults = _drawn(data, self.world.cloud.faults.delete)

    @precondition(lambda self: self.world.cloud.alive())
    @rule(data=st.data())
    def the_pod_fails(self, data: st.DataObject) -> None:
        how = data.draw(st.sampled_from(self.world.cloud.faults.observed))
        if how is None:
            self.world.cloud.lose()
        else:
            self.world.cloud.become(how)

    @precondition(lambda self: self.world.cloud.faults.moves)
    @precondition(lambda self: self.world.cloud.alive() and not self.world.cloud.renamed())
    @rule()
    def the_pod_is_moved(self) -> None:
        """It keeps its name, by which we find it."""
        self.world.cloud.move()

    # --- the files
    @precondition(lambda self: self.path("install.key").exists())  # without an identity a pass does not begin
    @rule(full=st.booleans())
    def the_disk_fills_or_is_cleared(self, full: bool) -> None:  # noqa: FBT001 - hypothesis gives it by name
        self.world.disk_is_full = full

    @rule(name=st.sampled_from(["pod_state.json", "orders.json", "ledger.jsonl"]))
    def a_file_is_torn(self, name: str) -> None:
        path = self.path(name)
        last_trace = name == "ledger.jsonl" and self.world.cloud.renamed()
        if path.exists() and not last_trace:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    @rule()
    def the_state_file_is_lost(self) -> None:
        self.path("pod_state.json").unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        store = self.world.store
        return store.state_file if name == store.state_file.name else store.directory / name

    # --- what must hold
    @invariant()
    def never_two_pods(self) -> None:
        type(self).steps += 1
        if hasattr(self, "world"):
            alive = self.world.cloud.alive()
            assert len(alive) <= 1, f"{alive} at once"

    def converge(self) -> None:
        """Calm makes both orders come true, and the deadline ends what nobody ends."""
        world = self.world
        world.calm()
        world.cloud.become(Observed.RUNNING)
        world.order(Direction.UP)
        self.reach(lambda: world.is_up() or world.gave_up(), passes=40)
        if world.gave_up():  # what vanished or never came is taken for ended by a person, whose word is due
            world.order(Direction.UP)
            self.reach(world.is_up, passes=20)
        world.now = max(world.now, (world.record.deadline or 0.0) - PASS_SECONDS)
        self.reach(world.is_down, passes=4, step=PASS_SECONDS)
        assert world.store.orders()[MODEL].by == "expiry"
        world.order(Direction.UP)
        self.reach(world.is_up, passes=20)
        world.order(Direction.DOWN)
        self.reach(lambda: world.record.phase is Phase.STOPPED, passes=60, step=5.0)
        assert world.is_down(), f"said to be down with {world.cloud.alive()} alive"

    def reach(self, done: Callable[[], bool], *, passes: int, step: float = CRON_SECONDS) -> None:
        self.world.settle(passes=passes, step=step, until=done)
        self.never_two_pods()
        assert done(), f"{self.world.cloud.alive()}, {self.world.record}"


def _drawn(data: st.DataObject, faults: Sequence[str]) -> list[str]:
    return data.draw(st.lists(st.sampled_from(["", *faults]), max_size=3))


LifecycleMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRandomWorlds = LifecycleMachine.TestCase


@pytest.mark.parametrize("provider", OTHERS)
def test_random_worlds_of_the_other_backends(provider: type[Provider]) -> None:
    """The same machine, the same promises, through a fake of each backend's provider."""

    class Other(LifecycleMachine):
        """Where these machines live."""

    Other.provider = provider.made
    run_state_machine_as_test(
        Other,
        settings=settings(
            max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_many_random_worlds() -> None:
    """At least 100,000 steps; the figure is printed at the end."""

    class Counted(LifecycleMachine):
        """Counts for itself."""

    run_state_machine_as_test(
        Counted,
        settings=settings(
            max_examples=3000, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    sys.stdout.write(f"{Counted.steps} steps, {Counted.passes} passes of the manager\n")
    assert Counted.steps >= LONG_STEPS


@pytest.mark.parametrize("lag", [0.0, 10.0, MAX_LAG])
@pytest.mark.parametrize("fault", ["", "unknown-made", "unknown-late"])
def test_down_is_not_reported_while_the_pod_lives(tmp_path: Path, lag: float, fault: str) -> None:
    world = World(tmp_path)
    world.cloud.lag, world.cloud.create_faults = lag, [fault]
    world.pass_()
    world.order(Direction.DOWN)
    for _ in range(40):
        world.pass_()
        assert not (world.phase is Phase.STOPPED and world.cloud.alive())
        world.now += 5.0
    assert world.phase is Phase.STOPPED


def test_a_renamed_pod_that_was_said_to_be_gone_is_no_stranger_when_it_shows_up(tmp_path: Path) -> None:
    """Found by the random worlds: list and look-up denied it for minutes, and then its name was not ours."""
    world = World(tmp_path)
    world.settle(passes=12)
    assert world.phase is Phase.READY
    world.cloud.rename()
    for _ in range(6):
        world.cloud.list_faults = ["blind"]
        world.pass_()
        world.now += 200.0
    assert world.record.instance_id is None, "taken for gone"
    world.order(Direction.UP)
    for _ in range(20):
        world.pass_()
        world.now += 10.0
        assert len(world.cloud.alive()) <= 1
    assert world.phase is Phase.READY
