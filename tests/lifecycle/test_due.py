"""When the next pass has something to do: the table of due.py, and nothing for what rests."""

from dataclasses import replace

import pytest

from llmpod.lifecycle.due import next_look
from llmpod.lifecycle.state import State
from llmpod.model import Direction, Phase, Record, Want

NOW = 1_000_000.0
UP = {"default": Want(Direction.UP, at=1.0, by="x")}
DOWN = {"default": Want(Direction.DOWN, at=1.0, by="x")}
READY = Record(Phase.READY, "n", "id")


def due(record: Record, orders: dict[str, Want] = UP) -> float | None:
    """In how many seconds."""
    found = next_look(State(records={"default": record}), orders, NOW)
    return None if found is None else found - NOW


@pytest.mark.parametrize(
    "record",
    [
        Record(),
        READY,
        Record(Phase.FAILED, error="gave up"),
        Record(next_try_at=NOW - 1),
        Record(deadline=NOW + 5, switch_at=NOW + 90),
        Record(suspects=(("old", NOW - 600),)),
        replace(READY, switch_at=NOW + 59),
    ],
)
def test_what_rests_is_not_due(record: Record) -> None:
    assert due(record) is None


@pytest.mark.parametrize(
    ("record", "seconds"),
    [
        (Record(Phase.INTENT, "n"), 20),
        (Record(Phase.UNKNOWN, "n"), 20),
        (Record(Phase.CREATED, "n", "id"), 30),
        (Record(Phase.BOOTING, "n", "id"), 30),
        (Record(Phase.LOADING, "n", "id"), 30),
        (Record(Phase.TERMINATING, "n", "id"), 10),
        (replace(READY, deadline=NOW + 77), 77),
        (replace(READY, deadline=NOW - 77), 20),
        (replace(READY, deadline=NOW + 900, switch_at=NOW + 100), 40),
        (replace(READY, deadline=NOW + 900, missing_since=NOW - 5), 20),
        (Record(Phase.CREATED, "n", "id", deadline=NOW + 7), 7),
        (Record(next_try_at=NOW + 12), 12),
        (Record(Phase.FAILED, next_try_at=NOW + 12), 12),
        (Record(suspects=(("a", NOW), ("b", NOW - 599))), 1),
        (Record(suspects=(("a", NOW - 10),)), 20),
        (Record(suspects=(("a", NOW - 30),)), 90),
        (Record(suspects=(("a", NOW - 120),)), 480),
    ],
)
def test_moments(record: Record, seconds: float) -> None:
    assert due(record) == seconds


def test_a_retry_is_due_only_while_the_model_is_wanted() -> None:
    waiting = Record(next_try_at=NOW + 12)
    assert due(waiting, DOWN) is None
    assert due(waiting, {}) == 12
    assert due(waiting, {"default": replace(UP["default"], until=NOW - 1)}) is None


def test_the_end_of_an_order_is_due() -> None:
    assert due(Record(), {"default": replace(DOWN["default"], until=NOW + 33)}) == 33


def test_nothing_at_all() -> None:
    assert next_look(State(), {}, NOW) is None
