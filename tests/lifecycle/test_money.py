"""Sums, limits and the words for them: figures that a person can check by hand."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import pytest

from llmpod.config import Budget
from llmpod.errors import NoMoney
from llmpod.lifecycle.book import Entry
from llmpod.lifecycle.exposure import unexplained, worst_case
from llmpod.lifecycle.money import Allowance, afford, alerts, allowance
from llmpod.lifecycle.spending import Spent, assumed, by_day, by_model, day_of, month_of, spent
from llmpod.model import Observed, Phase, Record
from tests.lifecycle.entries import DAY, HOUR, NOON, entry, machine

MIDNIGHT = NOON + 12 * HOUR


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def allowed(
    entries: Sequence[Entry], now: float, day: float | None = None, month: float | None = None
) -> Allowance:
    return allowance(Budget(per_day_usd=day, per_month_usd=month), entries, now)


# --- periods and sums
@pytest.mark.parametrize(
    ("moment", "start", "end"),
    [
        ("2026-11-21T12:00", "2026-11-01", "2026-12-01"),
        ("2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("2028-02-29T00:00", "2028-02-01", "2028-03-01"),
        ("2027-01-01T00:00", "2027-01-01", "2027-02-01"),
    ],
)
def test_months(moment: str, start: str, end: str) -> None:
    assert month_of(at(moment)) == (at(start), at(end))


def test_days_are_utc() -> None:
    assert day_of(NOON) == (NOON - 12 * HOUR, MIDNIGHT)
    assert day_of(MIDNIGHT) == (MIDNIGHT, MIDNIGHT + DAY)


def test_a_window_cuts_what_lies_outside() -> None:
    over_midnight = entry(usd=1.0, opened=MIDNIGHT - 2 * HOUR, closed=MIDNIGHT + 3 * HOUR)
    assert spent([over_midnight], MIDNIGHT - DAY, MIDNIGHT) == Spent(2.0)
    assert spent([over_midnight], MIDNIGHT, MIDNIGHT + DAY) == Spent(3.0)
    assert spent([over_midnight], MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR) == Spent(1.0)
    assert spent([over_midnight], MIDNIGHT + 4 * HOUR, MIDNIGHT + DAY) == Spent()
    assert spent([over_midnight], 0, MIDNIGHT - 3 * HOUR) == Spent()


def test_by_model_the_dearest_first_and_unknown_ones_too() -> None:
    entries = [
        entry("a", 0.5, model="small"),
        entry("b", 2.0, model="large"),
        entry("c", 0.5, model="small"),
        entry("d", None, model="odd"),
        entry("e", 9.0, model="old", opened=NOON - DAY, closed=NOON - HOUR),
    ]
    found = by_model(entries, NOON, NOON + 2 * HOUR)
    assert found == {"large": Spent(4.0), "small": Spent(2.0), "odd": Spent(0.0, 2.0)}
    assert list(found) == ["large", "small", "odd"]


def test_by_day_ends_today_and_shows_empty_days() -> None:
    series = by_day([entry(usd=1.0, opened=MIDNIGHT - 30 * HOUR, closed=MIDNIGHT + 1)], NOON, days=3)
    assert series == [
        (date(2026, 11, 19), Spent()),
        (date(2026, 11, 20), Spent(6.0)),
        (date(2026, 11, 21), Spent(12.0)),
    ]


def test_an_assumed_price_replaces_only_what_is_unknown() -> None:
    both = assumed([entry("a", None), entry("b", 1.0)], 3.0)
    assert spent(both, NOON, NOON + HOUR) == Spent(4.0)
    assert assumed([entry("a", None)], None) == (entry("a", None),)


# --- the budget
def test_no_budget_no_limit() -> None:
    free = allowance(None, [entry(usd=100.0)], NOON + DAY)
    assert (free.left_usd, free.binding, free.exhausted, free.share) == (None, None, False, 0.0)
    assert free.deadline() is None
    afford(free, 1000.0)


def test_left_and_binding() -> None:
    now = NOON + 2 * HOUR
    found = allowed([entry(usd=1.0)], now, day=10.0, month=5.0)
    assert (found.left_usd, found.binding, found.share) == (3.0, "per_month", 0.4)
    assert allowed([entry(usd=1.0)], now, day=4.0, month=5.0).binding == "per_day"
    assert not found.exhausted
    assert found.deadline() == now + 3 * HOUR


def test_of_two_used_up_limits_the_longer_one_binds() -> None:
    found = allowed([entry(usd=1.0)], NOON + 9 * HOUR, day=1.0, month=2.0)
    assert (found.exhausted, found.binding, found.left_usd) == (True, "per_month", 0.0)
    assert found.deadline() == NOON + 9 * HOUR


def test_midnight_renews_the_day_but_not_the_month() -> None:
    """At 1 USD/h from 23:00 the day's 3 USD last over midnight until 03:00; the month's 2 USD do not."""
    late = [entry(usd=1.0, opened=MIDNIGHT - HOUR)]
    assert allowed(late, MIDNIGHT - HOUR, day=3.0).deadline() == pytest.approx(MIDNIGHT + 3 * HOUR)
    assert allowed(late, MIDNIGHT - HOUR, day=3.0, month=2.0).deadline() == pytest.approx(MIDNIGHT + HOUR)


def test_two_machines_share_what_is_left_and_one_that_ends_leaves_more() -> None:
    both = [entry("a", 1.0), entry("b", 2.0)]
    assert allowed(both, NOON, day=6.0).deadline() == NOON + 2 * HOUR
    ends = [entry("a", 1.0), entry("b", 2.0, until=NOON + HOUR - 300)]
    assert allowed(ends, NOON, day=6.0).deadline() == pytest.approx(NOON + 4 * HOUR)
    assert allowed(both, NOON, day=6.0).deadline(3.0) == NOON + HOUR


def test_a_rate_that_never_uses_up_a_day_has_no_deadline() -> None:
    assert allowed([entry(usd=0.5)], NOON, day=12.01).deadline() is None
    assert allowed([entry(usd=0.5)], NOON, day=11.99).deadline() is not None


def test_what_buys_less_than_a_minute_is_refused_with_the_figures() -> None:
    now = NOON + HOUR
    few = allowed([entry(usd=1.0, closed=now)], now, day=1.01, month=50.0)
    afford(few, 0.59)
    with pytest.raises(NoMoney) as refused:
        afford(few, 0.61)
    assert refused.value.exit_code == 76
    assert refused.value.status == 402
    assert refused.value.retry_after == MIDNIGHT - now
    text = str(refused.value)
    for figure in (
        "$1.01 for 2026-11-21",
        "$1.00 is spent",
        "$0.01 is left",
        "$0.61/h",
        "2026-11-22 00:00 UTC",
    ):
        assert figure in text, text
    assert "budget.per_day_usd" in text


def test_an_unknown_price_is_refused_only_by_a_used_up_budget() -> None:
    over = [entry(usd=1.0, closed=NOON + HOUR)]
    afford(allowed(over, NOON + HOUR, day=1.001), None)
    with pytest.raises(NoMoney, match=r"another minute: \$1\.00 is spent, \$0\.00 is left\."):
        afford(allowed(over, NOON + HOUR, day=1.0), None)


def test_less_than_a_minute_before_midnight_the_new_day_counts() -> None:
    now = MIDNIGHT - 10
    spent_up = [entry(usd=1.0, opened=NOON, closed=NOON + HOUR)]
    afford(allowed(spent_up, now, day=1.01), 1.0)


# --- telling people
def test_eighty_and_hundred_percent() -> None:
    running = [entry(usd=1.0)]
    assert alerts(allowed(running, NOON + 7.9 * HOUR, day=10.0)) == []
    [first] = alerts(allowed(running, NOON + 8 * HOUR, day=10.0))
    assert first.key == "budget 2026-11-21 80"
    assert first.text == "80% of the budget for this day (2026-11-21, UTC) is spent: $8.00 of $10.00."
    assert alerts(allowed(running, NOON + 9.9 * HOUR, day=10.0))[0].key == first.key, "told once"
    [second] = alerts(allowed(running, NOON + 10 * HOUR, day=10.0))
    assert second.key == "budget 2026-11-21 100"
    assert "Nothing is started before 2026-11-22 00:00 UTC" in second.text


def test_each_limit_by_itself_and_each_period_anew() -> None:
    running = [entry(usd=1.0)]
    found = alerts(allowed(running, NOON + 10 * HOUR, day=10.0, month=12.0))
    assert [alert.key for alert in found] == ["budget 2026-11-21 100", "budget 2026-11 80"]
    [next_day] = alerts(allowed(running, MIDNIGHT + 9 * HOUR, day=10.0))
    assert next_day.key == "budget 2026-11-22 80"
    assert alerts(allowance(None, running, MIDNIGHT)) == []


# --- what it can come to
def ready(usd: float | None = 1.0, deadline: float | None = NOON + 2 * HOUR, **more: object) -> Record:
    fields = {"phase": Phase.READY, "instance_id": "p1", "model": "org/m", "usd_per_hour": usd, **more}
    return Record(deadline=deadline, **fields)  # type: ignore[arg-type]  # fields of a record, by name


def test_worst_case_of_live_machines() -> None:
    later = ready(2.0, switch_at=NOON + 3 * HOUR)
    found = worst_case([ready(), later, Record(deadline=NOON + DAY, usd_per_hour=9.0)], NOON)
    assert (found.usd, found.until, found.unknown) == (2.0 + 6.0, NOON + 3 * HOUR, ())
    assert worst_case([], NOON).usd == 0.0
    assert worst_case([ready(deadline=NOON - HOUR)], NOON).usd == 0.0


def test_worst_case_is_bounded_by_money() -> None:
    assert worst_case([ready()], NOON, stop=NOON + HOUR).usd == 1.0


@pytest.mark.parametrize("record", [ready(None), ready(deadline=None), ready(None, phase=Phase.INTENT)])
def test_worst_case_that_nobody_knows(record: Record) -> None:
    found = worst_case([ready(), record], NOON)
    assert found.usd is None
    assert found.unknown == ("org/m",)


# --- what nobody can explain
def test_all_is_explained() -> None:
    found = unexplained([machine("p1", 0.5)], ["p1"], 0.52)
    assert (found.foreign, found.alarms) == ((), ())
    assert found.stray_usd_per_hour == pytest.approx(0.02)


def test_a_foreign_machine_is_named_with_its_price() -> None:
    theirs = machine("p2", 0.7, name="my-notebook")
    stopped = machine("p3", None, name="old", observed=Observed.EXITED)
    found = unexplained([machine("p1", 0.5), theirs, stopped], ["p1"], 1.2)
    assert found.foreign == (theirs, stopped)
    assert found.alarms == (
        "Not of this installation, and left alone: p2 (my-notebook, $0.70/h), p3 (old, price unknown, stopped).",
    )


def test_spending_without_a_machine_is_an_alarm() -> None:
    found = unexplained([machine("p1", 0.5), machine("p2", 5.0, observed=Observed.EXITED)], ["p1", "p2"], 1.5)
    assert found.stray_usd_per_hour == pytest.approx(1.0)
    [alarm] = found.alarms
    assert "$1.50/h" in alarm
    assert "$1.00/h are unexplained" in alarm


@pytest.mark.parametrize(("price", "account"), [(None, 5.0), (0.5, None)])
def test_what_is_unknown_is_not_called_unexplained(price: float | None, account: float | None) -> None:
    found = unexplained([machine("p1", price)], ["p1"], account)
    assert (found.stray_usd_per_hour, found.alarms) == (None, ())
