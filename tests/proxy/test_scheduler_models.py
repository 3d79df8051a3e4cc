"""Several models: whose turn it is, some that come and go, and requests on their way; as test_scheduler.py."""

import random

import pytest

from llmpod.proxy.scheduler import LATE_SECONDS, TURN_SECONDS
from llmpod.proxy.states import Model, Sight, State, Ticket
from tests.proxy.swapping import Swapping
from tests.proxy.test_scheduler import WHY, House, Load


def test_who_was_let_go_on_and_has_not_got_there_keeps_the_model() -> None:
    """He waits for a place: neither another one of the group nor its idle time takes the model away meanwhile."""
    house = House(group="gpu", names=("a", "b"))
    ticket = Ticket(lambda: house.scheduler.board("a", ticket), house.refused.append, house.now + 300)
    assert not house.scheduler.ask("a", ticket, house.now)
    house.seen(Sight.READY)
    house.ask("b", 1)
    house.now += house.idle_seconds + TURN_SECONDS
    house.scheduler.tick(house.now)
    assert (house.wishes, house.scheduler.dismiss("a", house.now)) == (["wake a"], False)
    house.loads["a"].in_flight += 1
    house.scheduler.leave("a", ticket, house.now)
    assert house.wishes == ["wake a"], "now it works for him"
    house.loads["a"].in_flight -= 1
    house.scheduler.released("a", house.now)
    assert house.wishes == ["wake a", "rest a"]


def test_one_who_fails_on_his_way_takes_the_model_from_nobody_behind_him() -> None:
    house = House(group="gpu", names=("a", "b"))

    def fails() -> None:
        house.scheduler.board("a", first)
        house.scheduler.leave("a", first, house.now)

    first = Ticket(fails, house.refused.append, house.now + 300)
    assert not house.scheduler.ask("a", first, house.now)
    house.ask("a", 1)
    house.now += 1.0
    house.ask("b", 2)
    house.seen(Sight.READY)
    assert (house.wishes, house.went, house.state()) == (["wake a"], [1], State.AWAKE)
    house.end()
    assert house.wishes == ["wake a", "rest a"]


def test_models_come_and_go_and_the_others_stay_as_they_are() -> None:
    house = House(names=("a", "b"))
    house.ask("a")
    house.seen(Sight.READY)
    house.ask("b", 1)
    house.scheduler.have(Model("a", house.loads["a"], 77.0, priority=3))
    house.scheduler.have(Model("c", Load(), 5.0))
    house.scheduler.drop("b", WHY)
    known = house.scheduler.model("a")
    assert (known.state, known.idle_seconds, known.priority) == (State.AWAKE, 77.0, 3)
    assert house.scheduler.model("c").state is State.ASLEEP
    assert house.refused == [WHY]


def test_two_that_a_changed_configuration_puts_into_one_group_do_not_both_stay() -> None:
    house = House(idle_seconds=600.0, names=("a", "b"))
    for name in "ab":
        house.ask(name)
        house.seen(Sight.READY, name)
        house.now += 1.0
    for name in "ab":
        house.scheduler.have(Model(name, house.loads[name], 600.0, group="gpu"))
    house.passes(1.0)
    assert house.wishes == ["wake a", "wake b"], "both are at work"
    house.end("b")
    house.now += 1.0
    house.end("a")
    house.passes(1.0)
    assert house.wishes == ["wake a", "wake b", "rest b"], "the one that was used last stays"


@pytest.mark.parametrize("told", [2.0, 12.0])
def test_who_was_told_to_come_again_finds_the_model(told: float) -> None:
    """Neither its idle time, though it was ready early, nor another one's waiter takes it away before."""
    house = House(group="gpu", names=("a", "b"), idle_seconds=1.0)
    assert not house.call("a", seconds=told)
    house.ask("b", 1)
    house.passes(1.0)
    house.seen(Sight.READY, "a")
    house.passes(told - 1.0 + LATE_SECONDS / 2)
    assert house.wishes == ["wake a"]
    assert house.call("a", seconds=told)
    house.passes(5.0)
    assert house.wishes == ["wake a"], "it works"
    house.end("a")
    assert house.wishes == ["wake a", "rest a"], "and is free for the other one at once"


def test_who_was_told_to_come_again_is_let_in_though_another_one_waited_for_long() -> None:
    house = House(group="gpu", names=("a", "b"))
    assert not house.call("a", seconds=TURN_SECONDS)
    house.ask("b", 1)
    house.passes(TURN_SECONDS + 1.0)
    house.seen(Sight.READY, "a")
    assert house.call("a", seconds=1.0)


def test_for_who_does_not_come_again_nobody_waits_long() -> None:
    house = House(group="gpu", names=("a", "b"), idle_seconds=1.0)
    house.call("a", seconds=1000.0)
    house.ask("b", 1)
    house.seen(Sight.READY, "a")
    house.passes(TURN_SECONDS - 1.0)
    assert house.wishes == ["wake a"]
    house.passes(2.0)
    assert house.wishes == ["wake a", "rest a"]


def test_nobody_waits_for_ever_behind_a_model_that_is_always_asked() -> None:
    house = House(names=("a", "b"), group="gpu", idle_seconds=1000.0)
    house.ask("a", 0)
    house.seen(Sight.READY, "a")
    house.ask("b", 1)
    house.passes(TURN_SECONDS + 1)
    house.ask("a", 2)
    assert house.went == [0], "its turn is over: it only finishes what it has"
    house.end("a")
    assert house.wishes[-1] == "rest a"
    house.seen(Sight.DOWN, "a")
    house.seen(Sight.READY, "b")
    assert house.went == [0, 1]
    house.end("b")
    assert house.wishes[-1] == "rest b"
    house.seen(Sight.DOWN, "b")
    house.seen(Sight.READY, "a")
    assert house.went == [0, 1, 2]


def test_a_higher_priority_goes_first() -> None:
    house = House(names=("a", "b", "c"), group="gpu")
    house.scheduler.model("c").priority = 1
    house.ask("a")
    house.ask("b", 1)
    house.ask("c", 2)
    house.seen(Sight.READY, "a")
    house.end("a")
    house.seen(Sight.DOWN, "a")
    assert house.wishes[-1] == "wake c"


@pytest.mark.parametrize("seed", range(4))
def test_requests_for_three_models_on_one_gpu(seed: int) -> None:
    """300 requests with random disconnects: none lost, none at the wrong model, no busy model stopped."""
    swapping = Swapping(random.Random(seed), requests=300)
    swapping.run()
    assert swapping.wrong == []
    assert swapping.lost == []
    assert swapping.swaps <= swapping.most_swaps, f"{swapping.swaps} of {swapping.most_swaps}"
