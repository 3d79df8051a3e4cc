"""The deadline by money, against a meter that is read minute by minute and knows nothing of its arithmetic."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llmpod.config import Budget
from llmpod.lifecycle.book import Entry
from llmpod.lifecycle.money import allowance
from llmpod.lifecycle.spending import spent
from tests.lifecycle.entries import DAY, HOUR, entry

NEW_YEARS_EVE = datetime(2026, 12, 30, 18, tzinfo=UTC).timestamp()
DAYS = 4  # how far the meter is read: over midnights and the end of a month and year

money = st.integers(1, 4000).map(lambda cents: cents / 100)
limits = st.tuples(st.none() | money, st.none() | money).filter(lambda pair: pair != (None, None))
rates = st.integers(1, 1200).map(lambda cents: cents / 100)


@st.composite
def machines(draw: st.DrawFn) -> Entry:
    """One that began up to two days ago; it runs on, runs until its switch ends it, or is over."""
    opened = NEW_YEARS_EVE - draw(st.integers(0, 48 * 60)) * 60.0
    made = entry(draw(st.uuids()).hex, draw(rates), opened=opened)
    ending = draw(st.sampled_from(["runs", "switch", "over"]))
    if ending == "switch":
        return replace(made, until=NEW_YEARS_EVE + draw(st.integers(-2 * 60, 96 * 60)) * 60.0)
    if ending == "over":
        return replace(made, closed_at=min(NEW_YEARS_EVE, opened + draw(st.integers(0, 48 * 60)) * 60.0))
    return made


def over(
    entries: list[Entry], day: float | None, month: float | None, at: float, *, slack: float = 1e-7
) -> bool:
    """Whether a limit is reached, by the meter."""
    return any(
        limit is not None and used >= limit - slack for limit, used in used_of(entries, day, month, at)
    )


def used_of(
    entries: list[Entry], day: float | None, month: float | None, at: float
) -> list[tuple[float | None, float]]:
    moment = datetime.fromtimestamp(at, UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    starts = ((day, midnight.timestamp()), (month, midnight.replace(day=1).timestamp()))
    return [(limit, sum(metered(one, start, at) for one in entries)) for limit, start in starts]


def metered(one: Entry, start: float, end: float) -> float:
    """Price times time, of a machine with one price."""
    ends = [end]
    if one.closed_at is not None:
        ends.append(one.closed_at)
    elif one.until is not None:
        ends.append(max(one.opened_at, one.until + 300))
    hours = max(0.0, min(ends) - max(start, one.opened_at)) / 3600
    return hours * (one.rates[0][1] or 0.0)


@given(st.lists(machines(), max_size=4), limits)
def test_the_deadline_is_when_the_meter_reaches_a_limit(
    entries: list[Entry], pair: tuple[float | None, float | None]
) -> None:
    day, month = pair
    deadline = allowance(Budget(per_day_usd=day, per_month_usd=month), entries, NEW_YEARS_EVE).deadline()
    if over(entries, day, month, NEW_YEARS_EVE):
        assert deadline == NEW_YEARS_EVE
        return
    steps = [NEW_YEARS_EVE + minute * 60.0 for minute in range(0, DAYS * 24 * 60, 7)]
    hit = next((at for at in steps if over(entries, day, month, at)), None)
    if hit is None:
        assert deadline is None or deadline > steps[-1] - 7 * 60
        return
    assert deadline is not None
    assert deadline <= hit, "never later than the meter"
    if deadline < hit - 7 * 60:  # the day may end, and with it the proof, between two readings
        assert over(entries, day, month, deadline - 1e-3, slack=1e-4)


@given(st.lists(machines(), min_size=1, max_size=4), limits, rates)
def test_at_the_deadline_exactly_the_limit_is_spent(
    entries: list[Entry], pair: tuple[float | None, float | None], more: float
) -> None:
    day, month = pair
    budget = Budget(per_day_usd=day, per_month_usd=month)
    now = allowance(budget, entries, NEW_YEARS_EVE)
    deadline = now.deadline(more)
    if now.exhausted or deadline is None:
        return
    entries = [*entries, entry("new", more, opened=NEW_YEARS_EVE)]
    just = deadline - 1  # not the deadline itself: it may be midnight, when a new day has begun
    then = allowance(budget, entries, just)
    assert not then.exhausted or just <= NEW_YEARS_EVE
    burned = sum(meter.usd_per_hour for meter in then.meters) / 3600
    assert min(limit.left for limit in then.limits) <= burned + 2e-6, "one second's worth, not more"


@given(st.lists(machines(), max_size=3), limits, rates, rates, st.integers(1, 500))
def test_monotone(
    entries: list[Entry], pair: tuple[float | None, float | None], a: float, b: float, cents: int
) -> None:
    """A dearer machine never lasts longer; a larger budget never ends sooner."""
    day, month = pair
    budget = Budget(per_day_usd=day, per_month_usd=month)
    larger = Budget(per_day_usd=day and day + cents / 100, per_month_usd=month and month + cents / 100)
    now = allowance(budget, entries, NEW_YEARS_EVE)
    never = float("inf")
    cheap, dear = sorted((a, b))
    assert (now.deadline(dear) or never) <= (now.deadline(cheap) or never) + 1e-3
    more = allowance(larger, entries, NEW_YEARS_EVE).deadline(a) or never
    assert more >= (now.deadline(a) or never) - 1e-3


@given(st.lists(machines(), max_size=3), limits, rates)
def test_a_later_look_at_the_same_machines_says_the_same(
    entries: list[Entry], pair: tuple[float | None, float | None], more: float
) -> None:
    """So that each pass may compute it anew: nothing drifts."""
    budget = Budget(per_day_usd=pair[0], per_month_usd=pair[1])
    entries = [*entries, entry("new", more, opened=NEW_YEARS_EVE)]
    first = allowance(budget, entries, NEW_YEARS_EVE).deadline()
    if first is None or first <= NEW_YEARS_EVE + 60:
        return
    halfway = (NEW_YEARS_EVE + first) / 2
    again = allowance(budget, entries, halfway).deadline()
    assert again is not None
    assert abs(again - first) < 0.01


@given(st.lists(machines(), max_size=4), st.lists(st.floats(0, DAYS * DAY), min_size=1, max_size=6))
def test_sums_of_windows_are_the_sum_of_the_whole(entries: list[Entry], cuts: list[float]) -> None:
    start, end = NEW_YEARS_EVE - 3 * DAY, NEW_YEARS_EVE + DAYS * DAY
    edges = sorted({start, *(start + cut for cut in cuts), end})
    parts = sum(spent(entries, a, b).usd for a, b in pairwise(edges))
    whole = sum(metered(one, start, end) for one in entries)
    assert abs(parts - whole) < 1e-6
    assert abs(spent(entries, start, end).usd - whole) < 1e-6
    assert all(spent(entries, start, edge - HOUR).usd <= whole + 1e-9 for edge in edges)
