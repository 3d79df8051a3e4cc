"""A pass killed at each of its effects, by itself: what random worlds do at random (test_world.py)."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from llmpod.model import Direction, Phase
from tests.lifecycle.world import GRACE, World
from tests.support.ramdisk import quick_directory


def killed_at_every_effect(play: Callable[[World, int], bool]) -> int:
    """Worlds in which a pass is killed at its first effect, its second one … and at none; how many had a kill.

    Args:
        play: one of them; whether the kill was due.
    """
    for crash_at in count():
        with quick_directory() as directory:
            if not play(World(Path(directory)), crash_at):
                return crash_at
    raise AssertionError


@pytest.mark.parametrize("fault", ["", "unknown-made", "unknown-late", "capacity"])
def test_first_start_killed_at_every_effect(fault: str) -> None:
    def play(world: World, crash_at: int) -> bool:
        world.cloud.lag = 10.0
        world.cloud.create_faults = [fault]
        killed = world.pass_(crash_at=crash_at) is None
        for _ in range(int(GRACE / 10) + 20):
            world.pass_()
            world.now += 10.0
            assert len(world.cloud.alive()) <= 1, crash_at
        assert len(world.cloud.alive()) == 1, crash_at
        world.order(Direction.DOWN)
        world.settle(passes=15)
        assert world.cloud.alive() == [], crash_at
        return killed

    assert killed_at_every_effect(play) >= 8


def test_termination_killed_at_every_effect() -> None:
    def play(world: World, crash_at: int) -> bool:
        world.cloud.delete_lag = 15.0
        world.settle(passes=10)
        assert world.phase is Phase.READY, crash_at
        world.order(Direction.DOWN)
        killed = world.pass_(crash_at=crash_at) is None
        world.settle(passes=15)
        assert world.is_down(), crash_at
        return killed

    assert killed_at_every_effect(play) >= 5
