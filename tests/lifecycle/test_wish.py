"""What the proxy's wishes make of orders, through passes with real files: only machines' words are turned round."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from llmpod.config import Budget
from llmpod.lifecycle.share import UsageWriter
from llmpod.lifecycle.wish import SILENT_SECONDS, Terms
from llmpod.model import Direction, Phase, Refusal, Usage, Want
from tests.lifecycle.world import MODEL, World

FREE = Terms(on_request=True, idle_seconds=600.0)
MEMORY = Path("/dev/shm")  # noqa: S108 - where it exists, an fsync costs nothing there
PAID = replace(FREE, paid=True, may_pay=True)


class Front:
    """A proxy, as far as the manager sees it: what it writes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.usage = Usage()

    def says(self, **changes: float | None) -> None:
        self.usage = replace(self.usage, at=self.world.now + self.world.wrong_by, **changes)  # type: ignore[arg-type]
        UsageWriter(self.world.store.state_file).write({MODEL: self.usage})

    def wakes(self) -> float:
        self.world.now += 1.0
        at = self.world.now + self.world.wrong_by
        self.says(wake_wanted=at)
        return at

    def rests(self) -> None:
        self.world.now += 1.0
        self.says(rest_wanted=self.world.now + self.world.wrong_by)


@pytest.fixture
def room() -> Iterator[Path]:
    """Where an fsync costs nothing, if there is such a place."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        yield Path(directory)


def begun(directory: Path, terms: Terms = FREE, budget: Budget | None = None) -> tuple[World, Front]:
    world = World(directory, terms=terms, budget=budget)
    world.pass_()
    return world, Front(world)


def order(world: World) -> Want:
    return world.store.orders()[MODEL]


def refusal(world: World) -> Refusal:
    return world.store.load().unwoken[MODEL]


def bar(world: World) -> Refusal | None:
    """Why the next wish would be refused."""
    return world.store.load().barred.get(MODEL)


def test_nothing_is_bought_before_somebody_asks(room: Path) -> None:
    world, _ = begun(room)
    world.settle(passes=5)
    assert world.is_down()


def test_a_wish_starts_it_and_another_one_stops_it_and_again(room: Path) -> None:
    world, front = begun(room)
    for _ in range(2):
        front.wakes()
        world.settle(until=world.is_up)
        assert (order(world).by, world.is_up()) == ("request", True)
        front.rests()
        world.settle(until=world.is_down)
        assert (order(world).by, world.is_down()) == ("idle", True)
        world.settle(passes=5)
        assert world.is_down(), "a wish is heard once"


def test_the_last_wish_counts(room: Path) -> None:
    world, front = begun(room)
    front.wakes()
    front.rests()
    world.settle(passes=3)
    assert world.is_down()
    front.wakes()
    world.settle(until=world.is_up)
    front.rests()
    front.wakes()
    world.pass_()
    assert world.phase is Phase.READY


def test_a_persons_down_stays_and_says_so(room: Path) -> None:
    world, front = begun(room)
    front.wakes()
    world.settle(until=world.is_up)
    assert bar(world) is None
    world.order(Direction.DOWN)
    world.settle(until=world.is_down)
    said = bar(world)
    at = front.wakes()
    world.settle(passes=3)
    assert world.is_down()
    assert order(world).by == "test"
    assert (refusal(world).at, refusal(world).status) == (at, 503)
    assert "ordered down" in refusal(world).text
    assert said is not None
    assert replace(said, at=at) == refusal(world), "it was said before it was asked"
    world.order(Direction.UP)
    world.settle(passes=1)
    assert bar(world) is None


def test_a_persons_up_is_no_older_wishs_to_undo_but_a_new_one_may(room: Path) -> None:
    world, front = begun(room)
    front.wakes()
    world.settle(until=world.is_up)
    front.rests()
    world.settle(until=world.is_down)
    world.order(Direction.UP)
    world.settle(until=world.is_up)
    world.settle(passes=3)
    assert world.is_up()
    front.rests()
    world.settle(until=world.is_down)


def test_the_runtime_limit_ends_a_run_and_the_next_request_begins_another(room: Path) -> None:
    world, front = begun(room)
    front.wakes()
    world.settle(until=world.is_up)
    assert world.record.deadline is not None
    world.now = world.record.deadline + 1
    front.says(in_flight=1)
    world.settle(until=world.is_down)
    assert order(world).by == "expiry"
    front.wakes()
    world.settle(until=world.is_up)


@pytest.mark.parametrize("terms", [replace(PAID, may_pay=False), PAID])
def test_what_costs_money_is_started_only_when_that_is_allowed(room: Path, terms: Terms) -> None:
    world, front = begun(room, terms, Budget(per_day_usd=5.0))
    at = front.wakes()
    world.settle(passes=8, until=world.is_up)
    if terms.may_pay:
        assert world.is_up()
        return
    said = bar(world)
    assert world.is_down()
    assert said is not None
    assert said.status == 402
    assert (refusal(world).at, refusal(world).status) == (at, 402)
    assert "$0.00 of $5.00" in refusal(world).text


def test_a_used_up_budget_refuses_with_its_figures_and_a_stale_wish_buys_nothing_later(
    room: Path,
) -> None:
    world, front = begun(room, replace(PAID, idle_seconds=1e6), Budget(per_day_usd=5.0))
    front.wakes()
    world.settle(until=world.is_up)
    world.now += 600.0
    front.says()
    world.budget = Budget(per_day_usd=0.02)
    world.settle(until=world.is_down)
    assert order(world).by == "budget"
    at = front.wakes()
    world.settle(passes=2)
    found = refusal(world)
    assert (found.at, found.status) == (at, 402)
    assert "of $0.02" in found.text
    assert found.retry_at is not None
    world.now = found.retry_at + 60.0
    world.settle(passes=3)
    assert world.is_down(), "whoever asked yesterday has left"
    front.wakes()
    world.settle(until=world.is_up)


def test_a_run_that_gave_up_is_tried_again_at_the_next_wish(room: Path) -> None:
    world, front = begun(room)
    front.wakes()
    world.settle(until=world.is_up)
    world.cloud.lose()
    world.settle(until=world.gave_up)
    world.settle(passes=3)
    assert world.gave_up()
    front.wakes()
    world.settle(until=world.is_up)
    assert world.is_up()


def test_a_silent_proxy_keeps_nothing_alive(room: Path) -> None:
    """It died with a request in flight: nobody will ever wish the stop."""
    world, front = begun(room)
    front.wakes()
    world.settle(until=world.is_up)
    front.says(in_flight=1, last_byte=world.now)
    world.now += FREE.idle_seconds
    world.pass_()
    assert world.is_up()
    world.now += SILENT_SECONDS + 1
    world.settle(passes=5, until=world.is_down)
    assert (order(world).by, world.is_down()) == ("idle", True)


def test_a_proxy_that_gives_signs_of_life_keeps_its_stream(room: Path) -> None:
    world, front = begun(room)
    front.wakes()
    world.settle(until=world.is_up)
    for _ in range(40):
        world.now += 30.0
        front.says(in_flight=1)
        world.pass_()
    assert world.is_up()


@pytest.mark.parametrize("wrong_by", [-7200.0, 7200.0])
def test_wrong_clocks_confuse_no_wish(room: Path, wrong_by: float) -> None:
    world, front = begun(room)
    world.wrong_by = wrong_by
    world.pass_()
    front.wakes()
    for _ in range(10):
        world.pass_()
        front.says()
        world.now += 10
    assert world.is_up()
    front.rests()
    for _ in range(10):
        world.pass_()
        world.now += 10
    assert world.is_down()


def test_another_way_to_start_is_taken_over(room: Path) -> None:
    world, _ = begun(room)
    world.terms = Terms()
    world.settle(until=world.is_up)
    assert order(world).by == "first run"


def test_a_kill_anywhere_in_a_wake_leaves_one_machine_or_none(room: Path) -> None:
    for crash_at in range(12):
        directory = room / str(crash_at)
        directory.mkdir()
        world, front = begun(directory)
        front.wakes()
        world.pass_(crash_at=crash_at)
        assert len(world.cloud.alive()) <= 1
        world.settle(until=world.is_up)
        front.rests()
        world.pass_(crash_at=crash_at)
        world.settle(until=world.is_down)
