"""What is on its way, though no request waits for it here, gives way: to an operator, and to others of its group."""

import pytest

from llmpod.errors import ModelNotReady
from llmpod.proxy.states import Sight, State
from tests.proxy.test_scheduler import WHY, House


def test_what_another_has_started_and_nobody_uses_gives_way_before_it_is_ready() -> None:
    """As after a start of this process: a job that waits in a queue for hours would bar the others of its group."""
    house = House(group="gpu", names=("a", "b"))
    house.seen(Sight.MOVING, "a")
    house.ask("b", number=1)
    assert house.wishes == ["rest a"]
    house.seen(Sight.MOVING, "a", settled=False)
    house.seen(Sight.DOWN, "a")
    assert house.wishes == ["rest a", "wake b"]
    house.seen(Sight.READY, "b")
    assert house.went == [1]


def test_an_operator_stops_what_is_on_its_way_and_nobody_waits_for() -> None:
    house = House()
    assert house.scheduler.dismiss("a", house.now)
    assert house.wishes == [], "it is down"
    house.seen(Sight.MOVING)
    assert house.scheduler.dismiss("a", house.now)
    assert (house.wishes, house.state()) == (["rest a"], State.RESTING)


def test_nothing_gives_way_to_what_may_not_start_and_who_waits_for_that_hears_it() -> None:
    """Also who came before it was barred; and once it is no more, its earlier refusal counts no longer."""
    house = House(group="gpu", names=("a", "b"))
    house.ask("a")
    house.seen(Sight.READY, "a")
    house.ask("b", number=1)
    house.scheduler.bar("b", WHY, house.now)
    house.end("a")
    assert (house.refused, house.wishes, house.state()) == ([WHY], ["wake a"], State.AWAKE)
    with pytest.raises(ModelNotReady, match=WHY.message):
        house.ask("b", number=2)
    house.scheduler.bar("b", None, house.now)
    house.ask("b", number=3)
    assert house.wishes == ["wake a", "rest a"]
