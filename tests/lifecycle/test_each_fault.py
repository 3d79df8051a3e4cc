"""Each way in which a call of each provider can go wrong, by itself: what random worlds meet too seldom to rely on."""

from pathlib import Path

import pytest

from llmpod.model import Direction, Phase
from tests.lifecycle.cloud import Cloud
from tests.lifecycle.provider import Provider
from tests.lifecycle.serverless import Tap
from tests.lifecycle.test_world import OTHERS
from tests.lifecycle.world import World

PROVIDERS: tuple[type[Provider], ...] = (Cloud, *OTHERS)
CREATES = [(provider, fault) for provider in PROVIDERS for fault in ("", *provider.faults.create)]
DELETES = [(provider, fault) for provider in PROVIDERS for fault in ("", *provider.faults.delete)]
STEP_SECONDS = 10.0
PASSES = 60  # longer than the grace of an unclear create and the start after it


def reach(world: World, phase: Phase) -> None:
    """Passes until that phase is said; never two machines, and none when it is said to be down."""
    for _ in range(PASSES):
        world.pass_()
        alive = world.cloud.alive()
        assert len(alive) <= 1, f"{alive} at once"
        if world.record.phase is phase:
            assert phase is not Phase.STOPPED or alive == [], "said to be down"
            return
        if world.gave_up() and phase is Phase.READY:
            world.order(Direction.UP)
        world.now += STEP_SECONDS
    raise AssertionError(f"not {phase}: {world.record}")


@pytest.mark.parametrize(("provider", "fault"), CREATES)
@pytest.mark.parametrize("lost", [False, True], ids=["", "state lost"])
def test_a_create_that_goes_wrong_ends_with_one_machine(
    tmp_path: Path, provider: type[Provider], fault: str, *, lost: bool
) -> None:
    world = World(tmp_path, provider=provider.made)
    world.cloud.create_faults = [fault]
    world.pass_()
    if lost:
        world.store.state_file.unlink(missing_ok=True)
    reach(world, Phase.READY)
    assert world.is_up()
    world.order(Direction.DOWN)
    reach(world, Phase.STOPPED)


@pytest.mark.parametrize(("provider", "fault"), CREATES)
def test_down_after_a_create_that_went_wrong_leaves_nothing(
    tmp_path: Path, provider: type[Provider], fault: str
) -> None:
    world = World(tmp_path, provider=provider.made)
    world.cloud.create_faults = [fault]
    world.pass_()
    world.order(Direction.DOWN)
    reach(world, Phase.STOPPED)
    world.now += 400.0
    world.pass_()
    assert world.is_down()


@pytest.mark.parametrize(("provider", "fault"), DELETES)
def test_a_delete_that_goes_wrong_is_awaited(tmp_path: Path, provider: type[Provider], fault: str) -> None:
    world = World(tmp_path, provider=provider.made)
    world.cloud.delete_lag = 2.5 * STEP_SECONDS
    reach(world, Phase.READY)
    world.cloud.delete_faults = [fault]
    world.order(Direction.DOWN)
    reach(world, Phase.STOPPED)


def test_what_would_only_be_replaced_is_not_adopted(tmp_path: Path) -> None:
    """Found by the random worlds: an old machine's end became that of a new order, and was too near for another."""
    world = World(tmp_path, provider=Tap.made)
    reach(world, Phase.READY)
    world.now = (world.record.deadline or 0.0) - 80.0
    world.digest = "e"
    world.store.state_file.unlink()
    world.order(Direction.UP)
    reach(world, Phase.READY)
    assert (world.record.deadline or 0.0) > world.now + 3000.0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_order_after_a_lost_run_is_over_starts_a_new_run(tmp_path: Path, provider: type[Provider]) -> None:
    """Found by the random worlds: the old deadline, long past, ended the run that a person had just ordered."""
    world = World(tmp_path, provider=provider.made)
    reach(world, Phase.READY)
    world.now = (world.record.deadline or 0.0) - 600.0
    world.digest = "e"  # a machine that was made late in the run
    world.pass_()
    reach(world, Phase.READY)
    world.now = (world.record.deadline or 0.0) + 90.0  # nobody managed it meanwhile
    world.store.state_file.unlink()
    world.order(Direction.UP)
    reach(world, Phase.READY)
    assert (world.record.deadline or 0.0) > world.now + 3000.0


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("late", [-30.0, 90.0], ids=["just before", "after"])
def test_a_lost_state_prolongs_no_run(tmp_path: Path, provider: type[Provider], late: float) -> None:
    world = World(tmp_path, provider=provider.made)
    reach(world, Phase.READY)
    world.now = (world.record.deadline or 0.0) + late
    seen = bool(world.cloud.alive())
    world.store.state_file.unlink()
    for _ in range(PASSES):
        world.pass_()
        world.now += STEP_SECONDS
    assert world.is_down() or not seen, world.record


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("lost_after", [2400.0, 4400.0], ids=["in it", "after its end"])
def test_a_lost_state_prolongs_no_run_that_was_ordered_anew(
    tmp_path: Path, provider: type[Provider], lost_after: float
) -> None:
    """The order came while the machine ran: its run ends by that order, not a whole run after the loss."""
    world = World(tmp_path, provider=provider.made)
    reach(world, Phase.READY)
    world.now += 600.0
    world.order(Direction.UP)
    world.pass_()
    end = world.record.deadline or 0.0
    world.now += lost_after
    world.store.state_file.unlink()
    for _ in range(10):
        world.pass_()
        assert (world.record.deadline or 0.0) <= end, world.record
        world.now += 2 * STEP_SECONDS
    assert world.is_up() if world.now < end else world.is_down()
