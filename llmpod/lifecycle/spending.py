"""Not the ledger and not a limit: what its entries add up to. Pure.

Money is US dollars, times are epoch seconds, days and months are UTC, as on RunPod's bill. What nobody knows the
price of counts as unknown hours, never as nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from llmpod.lifecycle.book import Entry


@dataclass(frozen=True, slots=True)
class Spent:
    """Money in USD, and hours of machines whose price nobody knows."""

    usd: float = 0.0
    unknown_hours: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.usd + other.usd, self.unknown_hours + other.unknown_hours)


def day_of(at: float) -> tuple[float, float]:
    """Start and end of the UTC day."""
    start = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return start.timestamp(), (start + timedelta(days=1)).timestamp()


def month_of(at: float) -> tuple[float, float]:
    """Start and end of the UTC month."""
    first = datetime.fromtimestamp(day_of(at)[0], UTC).replace(day=1)
    return first.timestamp(), (first + timedelta(days=31)).replace(day=1).timestamp()


def spent(entries: Iterable[Entry], since: float, until: float) -> Spent:
    """What machines cost between two moments; one that still exists costs until the later of them."""
    return sum((_cost(entry, since, until) for entry in entries), Spent())


def _cost(entry: Entry, since: float, until: float) -> Spent:
    usd = unknown = 0.0
    for start, end, rate in entry.pieces(until):
        hours = max(0.0, end - max(start, since)) / 3600
        usd += hours * (rate or 0.0)
        unknown += hours if rate is None else 0.0
    return Spent(usd, unknown)


def by_model(entries: Sequence[Entry], since: float, until: float) -> dict[str, Spent]:
    """The same for each model that cost something, the dearest first."""
    models = {entry.model for entry in entries}
    sums = {model: spent((e for e in entries if e.model == model), since, until) for model in models}
    costly = [(model, sum_) for model, sum_ in sums.items() if sum_ != Spent()]
    return dict(sorted(costly, key=lambda item: (-item[1].usd, item[0])))


def by_day(entries: Sequence[Entry], now: float, *, days: int = 14) -> list[tuple[date, Spent]]:
    """The same for each of the last days, today the last."""
    today = datetime.fromtimestamp(day_of(now)[0], UTC)
    starts = [today - timedelta(days=back) for back in range(days - 1, -1, -1)]
    return [
        (start.date(), spent(entries, start.timestamp(), min(now, (start + timedelta(days=1)).timestamp())))
        for start in starts
    ]


def assumed(entries: Iterable[Entry], usd_per_hour: float | None) -> tuple[Entry, ...]:
    """The entries with a price (say, ``max_hourly_cost``) wherever none is known; None leaves them as they are."""
    return tuple(
        replace(e, rates=tuple((since, usd_per_hour if rate is None else rate) for since, rate in e.rates))
        for e in entries
    )
