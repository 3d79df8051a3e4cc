"""Models that come and go while others wait, and requests on their way to one; as test_scheduler.py."""

from llmpod.proxy.scheduler import TURN_SECONDS
from llmpod.proxy.states import Model, Sight, State, Ticket
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
