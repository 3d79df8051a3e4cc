"""What stands in a file of ours is of the type that it should be, or the file is damaged."""

from dataclasses import asdict

import pytest

from llmpod.lifecycle.state import ClockMark, ProxyRecord, State, Trouble, decode, encode
from llmpod.lifecycle.typed import typed
from llmpod.model import Direction, Phase, ProcessId, Record, Usage, Want

FULL = State(
    records={
        "default": Record(Phase.READY, "n", "id", deadline=2.0, suspects=(("a", 1.0),), config={"a": [1]})
    },
    proxy=ProxyRecord(ProcessId(1, 2, "boot"), 8000, "t", "d", 5.0),
    last_pass=3.0,
    clock_mark=ClockMark("boot", 1.0, 2.0),
    refused={"k": 1.0},
    told={"k": 1.0},
    foreign={"id": "words"},
    trouble=Trouble("code", "text", 1.0),
)
ODD: list[object] = [
    "soon",
    True,
    [],
    [1],
    {},
    {"a": None},
    float("nan"),
    float("inf"),
    10**400,
    1e300,
    -1e300,
]


def test_a_state_survives_its_file() -> None:
    assert decode(encode(FULL)) == FULL
    assert decode({"models": {"default": {"phase": "stopped"}}}) == State(records={"default": Record()})


def test_whole_numbers_do_for_times() -> None:
    found = decode({"models": {"default": {"phase": "ready", "deadline": 7}}}).record("default")
    assert (found.deadline, type(found.deadline)) == (7.0, float)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:12])
@pytest.mark.parametrize(
    "field", ["last_pass", "clock_offset", "clock_mark", "proxy", "trouble", "account_at"]
)
def test_no_field_of_the_state_takes_another_type(field: str, odd: object) -> None:
    with pytest.raises(ValueError, match=r"should be|cannot be|missing|unknown"):
        decode({**encode(FULL), field: odd})


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:12])
@pytest.mark.parametrize(
    "field", ["deadline", "instance_id", "crashes", "delete_accepted", "phase", "suspects"]
)
def test_no_field_of_a_record_takes_another_type(field: str, odd: object) -> None:
    if (field, odd) in (("suspects", []), ("delete_accepted", True), ("instance_id", "soon")):
        return
    with pytest.raises(ValueError, match=r"should be|cannot be|not a valid"):
        decode({"models": {"default": {**asdict(Record()), field: odd}}})


@pytest.mark.parametrize("document", [{}, {"models": []}, {"models": {"a": 1}}, {"models": {"a": {"x": 1}}}])
def test_what_is_no_state_is_damaged(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"records should be|it should be|unknown"):
        decode(document)


def test_orders_and_usage() -> None:
    assert typed(Want, {"direction": "down", "at": 1, "by": "x"}) == Want(Direction.DOWN, 1.0, "x")
    assert typed(Usage, {"in_flight": 2}) == Usage(in_flight=2)
    wrong: list[object] = [{"direction": "down", "by": "x"}, {"direction": "x", "at": 1, "by": "x"}, [], None]
    for odd in wrong:
        with pytest.raises(ValueError, match=r"missing|not a valid|should be"):
            typed(Want, odd)
