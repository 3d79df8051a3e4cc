"""Who waits and which model runs, as pure decisions under a clock of our own."""

from dataclasses import dataclass, field

import pytest

from llmpod.errors import LlmpodError, ModelNotReady, NoMoney, Overloaded
from llmpod.proxy.scheduler import LINE, Scheduler
from llmpod.proxy.states import TABLE, Event, Model, Sight, State, Ticket

WHY = ModelNotReady("it crashed")


@dataclass
class Load:
    """Requests in flight."""

    in_flight: int = 0


@dataclass
class House:
    """A scheduler, its hands and its clock."""

    idle_seconds: float = 5.0
    group: str = ""
    names: tuple[str, ...] = ("a",)
    now: float = 1000.0
    wishes: list[str] = field(default_factory=list)
    went: list[int] = field(default_factory=list)
    refused: list[LlmpodError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loads = {name: Load() for name in self.names}
        models = [Model(name, self.loads[name], self.idle_seconds, group=self.group) for name in self.names]
        self.scheduler = Scheduler(models, self)

    def wake(self, model: str) -> None:
        self.wishes.append(f"wake {model}")

    def rest(self, model: str, _why: str) -> None:
        self.wishes.append(f"rest {model}")

    def call(self, name: str = "a", *, seconds: float) -> bool:
        """One request that is told to come again after so long, unless it may go on; whether it did."""
        ticket = Ticket(lambda: None, self.refused.append, self.now + 300.0, due=self.now + seconds)
        if self.scheduler.ask(name, ticket, self.now):
            self.loads[name].in_flight += 1
            return True
        return False

    def ask(self, name: str = "a", number: int = 0, patience: float = 300.0) -> Ticket:
        """One request; it is in flight as soon as it may go on."""

        def go() -> None:
            self.loads[name].in_flight += 1
            self.went.append(number)

        ticket = Ticket(go, self.refused.append, self.now + patience)
        if self.scheduler.ask(name, ticket, self.now):
            go()
        return ticket

    def seen(self, sight: Sight, name: str = "a", *, settled: bool = True, why: LlmpodError = WHY) -> None:
        self.scheduler.seen(name, sight, self.now, settled=settled, why=why)

    def end(self, name: str = "a") -> None:
        """One answer is over."""
        self.loads[name].in_flight -= 1
        if not self.loads[name].in_flight:
            self.scheduler.released(name, self.now)

    def passes(self, seconds: float, *, step: float = 0.25) -> None:
        for _ in range(round(seconds / step)):
            self.now += step
            self.scheduler.tick(self.now)

    def state(self, name: str = "a") -> State:
        return self.scheduler.model(name).state


def test_the_table_names_every_state_and_no_act_leaves_it() -> None:
    assert set(TABLE) == set(State)
    for events in TABLE.values():
        assert set(events) <= set(Event)
        assert {state for state, _ in events.values()} <= set(State)


def test_the_first_request_wishes_once_and_all_go_on_when_the_model_is_ready() -> None:
    house = House()
    for number in range(3):
        house.ask(number=number)
    assert (house.wishes, house.went) == (["wake a"], [])
    house.seen(Sight.MOVING)
    house.seen(Sight.READY)
    assert house.went == [0, 1, 2]
    house.ask(number=3)
    assert house.went == [0, 1, 2, 3]
    assert house.wishes == ["wake a"]


def test_what_the_state_said_before_the_wish_was_heard_counts_for_nothing() -> None:
    house = House()
    house.ask()
    house.seen(Sight.DOWN, settled=False)
    assert (house.state(), house.refused) == (State.WAKING, [])
    house.seen(Sight.READY, settled=False)
    assert house.went == []
    house.seen(Sight.READY)
    assert house.went == [0]


def test_it_rests_after_its_idle_time_and_the_next_request_wakes_it_again() -> None:
    house = House()
    house.ask()
    house.seen(Sight.READY)
    house.end()
    house.passes(4.5)
    assert house.state() is State.AWAKE
    house.passes(1.0)
    assert house.wishes == ["wake a", "rest a"]
    house.seen(Sight.READY, settled=False)  # the file is older than the wish
    assert house.state() is State.RESTING
    house.ask(number=1)
    assert house.wishes == ["wake a", "rest a", "wake a"]
    house.seen(Sight.MOVING)
    house.seen(Sight.READY)
    assert house.went == [0, 1]


def test_who_asks_for_a_model_that_is_restarted_waits_for_the_new_one() -> None:
    house = House()
    house.ask(number=1)
    house.seen(Sight.READY)
    assert not house.scheduler.renew("a", house.now), "it is at work"
    house.end()
    assert house.scheduler.renew("a", house.now)
    house.ask(number=2)
    house.seen(Sight.READY, settled=False)
    assert (house.wishes, house.went) == (["wake a", "rest a"], [1])
    house.seen(Sight.DOWN)
    assert house.wishes == ["wake a", "rest a", "wake a"]
    house.seen(Sight.DOWN, settled=False)
    assert house.state() is State.WAKING
    house.seen(Sight.READY)
    assert house.went == [1, 2]


def test_a_restart_gives_way_to_who_waits_for_another_model() -> None:
    house = House(group="gpu", names=("a", "b"))
    house.ask("a")
    house.seen(Sight.READY, "a")
    house.end("a")
    assert house.scheduler.renew("a", house.now)
    house.ask("b", 2)
    house.seen(Sight.DOWN, "a")
    assert (house.state("a"), house.state("b")) == (State.ASLEEP, State.WAKING)


def test_a_stream_of_ten_minutes_is_never_cut() -> None:
    house = House(idle_seconds=5.0)
    house.ask()
    house.seen(Sight.READY)
    house.passes(600.0)
    assert (house.state(), house.wishes) == (State.AWAKE, ["wake a"])
    house.end()
    house.passes(4.0)
    assert house.state() is State.AWAKE, "its last byte was four seconds ago"
    house.passes(1.5)
    assert house.state() is State.RESTING


def test_who_left_starts_nothing_and_keeps_nothing_starting() -> None:
    house = House()
    ticket = house.ask()
    house.scheduler.leave("a", ticket, house.now)
    assert house.wishes == ["wake a", "rest a"], "nobody has acted on it yet: it is taken back"
    house.seen(Sight.DOWN)
    assert house.state() is State.ASLEEP
    ticket = house.ask()
    house.seen(Sight.MOVING)
    house.scheduler.leave("a", ticket, house.now)
    assert house.state() is State.WAKING, "a machine that is on its way comes, and is then idle"
    house.seen(Sight.READY)
    house.passes(6.0)
    assert house.wishes[-1] == "rest a"


def test_a_failed_start_is_told_to_all_and_not_repeated_at_once() -> None:
    house = House()
    house.ask()
    house.ask()
    house.seen(Sight.DOWN)
    assert [error.message for error in house.refused] == ["it crashed"] * 2
    with pytest.raises(ModelNotReady) as caught:
        house.ask()
    assert caught.value.retry_after is not None
    house.seen(Sight.DOWN)  # another look changes nothing
    with pytest.raises(ModelNotReady):
        house.ask()
    assert house.wishes == ["wake a"]
    house.passes(caught.value.retry_after + 0.5)
    house.ask()
    assert house.wishes == ["wake a", "wake a"]
    house.seen(Sight.DOWN)
    with pytest.raises(ModelNotReady) as later:
        house.ask()
    assert later.value.retry_after is not None
    assert later.value.retry_after > caught.value.retry_after


def test_a_refusal_keeps_its_kind_and_its_time_until_somebody_else_starts_the_model() -> None:
    house = House()
    house.ask()
    house.seen(Sight.DOWN, why=NoMoney("$5.00 of $5.00", retry_after=3600))
    assert isinstance(house.refused[0], NoMoney)
    assert house.refused[0].retry_after == 3600
    with pytest.raises(NoMoney):
        house.ask()
    house.seen(Sight.MOVING)
    house.ask(number=7)
    house.seen(Sight.READY)
    assert house.went == [7]


def test_patience_and_the_line_have_ends() -> None:
    house = House()
    for _ in range(LINE):
        house.ask(patience=10.0)
    with pytest.raises(Overloaded):
        house.ask()
    house.passes(11.0)
    assert len(house.refused) == LINE
    assert "goes on" in house.refused[0].message
    assert house.state() is State.WAKING


def test_a_model_that_somebody_else_started_or_ended_is_noticed() -> None:
    house = House()
    house.seen(Sight.READY)
    house.ask()
    assert (house.went, house.wishes) == ([0], [])
    house.end()
    house.seen(Sight.MOVING, settled=False)
    house.ask(number=1)
    assert (house.went, house.wishes) == ([0], ["wake a"])


def test_one_of_a_group_at_a_time_and_no_busy_one_is_stopped() -> None:
    house = House(names=("a", "b"), group="gpu")
    house.ask("a", 0)
    house.seen(Sight.READY, "a")
    house.ask("b", 1)
    house.passes(3.0)
    assert house.wishes == ["wake a"], "a is at work"
    house.ask("a", 2)
    assert house.went == [0, 2], "who asks for what runs goes on"
    house.end("a")
    house.end("a")
    assert house.wishes == ["wake a", "rest a"]
    house.seen(Sight.MOVING, "a")
    assert "wake b" not in house.wishes, "a is not gone yet"
    house.seen(Sight.DOWN, "a")
    assert house.wishes[-1] == "wake b"
