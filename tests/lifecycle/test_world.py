"""Random worlds: whatever is killed, delayed or answered unclearly, there is never a second pod and the bill stops."""

from pathlib import Path
from tempfile import TemporaryDirectory

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

from llmpod.model import Direction, Observed, Phase
from tests.lifecycle.world import GRACE, MAX_LAG, MODEL, RUNTIME, World

CREATE_FAULTS = ["", "capacity", "429", "unknown-not-made", "unknown-made", "unknown-late"]
PASS_SECONDS = 300.0


class LifecycleMachine(RuleBasedStateMachine):
    """Manager x cloud x clock. Passes may be killed at any effect."""

    @initialize(lag=st.sampled_from([0.0, 5.0, MAX_LAG]), delete_lag=st.sampled_from([0.0, 15.0]))
    def begin(self, lag: float, delete_lag: float) -> None:
        self.directory = TemporaryDirectory()
        self.world = World(Path(self.directory.name))
        self.world.cloud.lag, self.world.cloud.delete_lag = lag, delete_lag
        self.quiet_since = self.world.now

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.converge()
            self.directory.cleanup()

    @rule(crash_at=st.none() | st.integers(0, 14))
    def run_pass(self, crash_at: int | None) -> None:
        self.world.pass_(crash_at=crash_at)

    @rule(seconds=st.sampled_from([1.0, 7.0, 31.0, 121.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(direction=st.sampled_from(list(Direction)))
    def order(self, direction: Direction) -> None:
        self.world.order(direction)

    @rule(faults=st.lists(st.sampled_from(CREATE_FAULTS), max_size=3))
    def creates_go_wrong(self, faults: list[str]) -> None:
        self.world.cloud.create_faults = faults

    @rule(faults=st.lists(st.sampled_from(["", "error", "empty"]), max_size=3))
    def listings_go_wrong(self, faults: list[str]) -> None:
        self.world.cloud.list_faults = faults

    @rule(faults=st.lists(st.sampled_from(["", "error", "executed-but-error"]), max_size=3))
    def deletes_go_wrong(self, faults: list[str]) -> None:
        self.world.cloud.delete_faults = faults

    @precondition(lambda self: self.world.cloud.alive())
    @rule(how=st.sampled_from([Observed.EXITED, Observed.BROKEN, None]))
    def the_pod_fails(self, how: Observed | None) -> None:
        if how is None:
            self.world.kill_pod()
            return
        for pod_id in self.world.cloud.alive():
            self.world.cloud.pods[pod_id].observed = how

    @rule()
    def the_state_file_is_torn(self) -> None:
        state = self.world.store.state_file
        if state.exists():
            state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])

    @invariant()
    def never_two_pods(self) -> None:
        if hasattr(self, "world"):
            alive = self.world.cloud.alive()
            assert len(alive) <= 1, f"{alive} at once"

    def converge(self) -> None:
        """Quiet times make both orders come true, and the deadline ends what nobody ends."""
        world = self.world
        world.settle(passes=100)
        world.order(Direction.UP)
        for pod in world.cloud.pods.values():
            pod.observed = Observed.RUNNING
        world.settle()
        assert len(world.cloud.alive()) == 1
        assert world.store.load().record(MODEL).phase is Phase.READY
        world.settle(passes=int(RUNTIME / PASS_SECONDS) + 3, step=PASS_SECONDS)
        assert world.cloud.alive() == [], "the deadline passed"
        assert world.store.orders()[MODEL].by == "expiry"
        world.order(Direction.UP)
        world.settle()
        world.order(Direction.DOWN)
        world.settle(passes=20)
        assert world.cloud.alive() == []
        assert world.store.load().record(MODEL).phase is Phase.STOPPED


LifecycleMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRandomWorlds = LifecycleMachine.TestCase


@pytest.mark.long
def test_many_random_worlds() -> None:
    """3,000 worlds of up to 40 steps (>= 100,000 steps with the convergence at the end of each)."""
    run_state_machine_as_test(
        LifecycleMachine,
        settings=settings(
            max_examples=3000, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.parametrize("crash_at", range(16))
@pytest.mark.parametrize("fault", ["", "unknown-made", "unknown-late", "capacity"])
def test_first_start_killed_at_every_effect(tmp_path: Path, crash_at: int, fault: str) -> None:
    world = World(tmp_path)
    world.cloud.lag = 10.0
    world.cloud.create_faults = [fault]
    world.pass_(crash_at=crash_at)
    for _ in range(int(GRACE / 10) + 20):
        world.pass_()
        world.now += 10.0
        assert len(world.cloud.alive()) <= 1
    assert len(world.cloud.alive()) == 1
    world.order(Direction.DOWN)
    world.settle(passes=15)
    assert world.cloud.alive() == []


@pytest.mark.parametrize("crash_at", range(8))
def test_termination_killed_at_every_effect(tmp_path: Path, crash_at: int) -> None:
    world = World(tmp_path)
    world.cloud.delete_lag = 15.0
    world.settle(passes=10)
    assert world.store.load().record(MODEL).phase is Phase.READY
    world.order(Direction.DOWN)
    world.pass_(crash_at=crash_at)
    world.settle(passes=15)
    assert world.cloud.alive() == []
    assert world.store.load().record(MODEL).phase is Phase.STOPPED


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
    assert world.store.load().record(MODEL).phase is Phase.STOPPED
