"""Not a meter: how long the budget lasts, whether it buys another machine, and when people should hear of it. Pure.

A pass uses it in this order: :func:`allowance` of the ledger's entries; an exhausted one orders "down"; its
``deadline()`` bounds every run; :func:`afford` stands before each create; :func:`alerts` are told.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Literal

from llmpod.config import Budget
from llmpod.errors import NoMoney
from llmpod.lifecycle.book import Entry
from llmpod.lifecycle.spending import Spent, day_of, month_of, spent

LEAST_SECONDS = 60.0  # a machine that the budget ends sooner is not worth its start
ALERT_PERCENTS = (80, 100)
_SPECK_USD = 1e-6  # floating point, not money
_HORIZON_DAYS = 93  # holds one whole month of 31 days, whenever it begins; a run lasts 31 days at most
Period = Literal["per_day", "per_month"]


def dollars(amount: float | None) -> str:
    """Money for people: what is unknown, or less than a cent, is never shown as zero."""
    return "unknown" if amount is None else f"${amount:.4f}" if 0 < amount < 0.01 else f"${amount:.2f}"


def rate(usd_per_hour: float | None) -> str:
    """A price for people; one that nobody knows is not nothing."""
    return "price unknown" if usd_per_hour is None else f"{dollars(usd_per_hour)}/h"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of the budget in the period that runs now. ``period`` names that: ``2026-11-21``, ``2026-11``."""

    kind: Period
    usd: float
    spent: Spent
    period: str
    renews_at: float

    @property
    def left(self) -> float:
        """USD, never negative."""
        left = self.usd - self.spent.usd
        return left if left > _SPECK_USD else 0.0

    @property
    def share(self) -> float:
        """How much of it is spent: 1.0 is all."""
        return 1.0 if self.left == 0.0 and self.spent.usd < self.usd else self.spent.usd / self.usd


@dataclass(frozen=True, slots=True)
class Meter:
    """A machine that costs so much an hour until it ends; infinite when nobody knows when that is."""

    usd_per_hour: float
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the budget allows from a moment on.

    Args:
        at: the moment.
        limits: the configured limits; none: everything is allowed.
        meters: the machines that cost money then.
    """

    at: float
    limits: tuple[Limit, ...] = ()
    meters: tuple[Meter, ...] = ()

    @property
    def tightest(self) -> Limit | None:
        """The limit with the least left; of two that are used up, the one that is so for longer."""
        return min(self.limits, key=lambda limit: (limit.left, -limit.renews_at), default=None)

    @property
    def binding(self) -> Period | None:
        return self.tightest.kind if self.tightest else None

    @property
    def left_usd(self) -> float | None:
        """What may be spent before a limit is reached or renewed; None: as much as you like."""
        return self.tightest.left if self.tightest else None

    @property
    def exhausted(self) -> bool:
        return self.left_usd == 0.0

    @property
    def share(self) -> float:
        """How much of the most used limit is spent: 1.0 is all; 0.0 without a budget."""
        return max((limit.share for limit in self.limits), default=0.0)

    def deadline(self, more_usd_per_hour: float = 0.0) -> float | None:
        """When the first limit is reached if all machines go on as they are, renewals at midnight included.

        Args:
            more_usd_per_hour: the price of one more machine, from ``at`` on.

        Returns:
            ``at`` itself when a limit is reached already; None when it never will be within three months.
        """
        if self.exhausted:
            return self.at
        meters = (*self.meters, Meter(more_usd_per_hour))
        left = {limit.kind: limit.left for limit in self.limits}
        for start, end in _stretches(self.at, meters):
            left |= {limit.kind: limit.usd for limit in self.limits if _begins(limit.kind, start, self.at)}
            rate = sum(m.usd_per_hour for m in meters if m.until > start) / 3600
            least = min(left.values(), default=math.inf)
            if rate > 0 and start + least / rate <= end:
                return start + least / rate
            left = {kind: usd - rate * (end - start) for kind, usd in left.items()}
        return None


def allowance(budget: Budget | None, entries: Sequence[Entry], now: float) -> Allowance:
    """What the budget allows now.

    Args:
        budget: the limits, or None.
        entries: the ledger's; where a price is unknown they cannot be held to the budget, see :func:`assumed`.
        now: the time.
    """
    meters = tuple(
        Meter(entry.usd_per_hour, entry.ends_by) for entry in entries if entry.is_open and entry.usd_per_hour
    )
    return Allowance(now, tuple(_limits(budget, entries, now)) if budget else (), meters)


def afford(allowed: Allowance, usd_per_hour: float | None) -> None:
    """Whether one more machine may be bought.

    Args:
        allowed: the allowance.
        usd_per_hour: its price; None when nobody knows: then only what the others cost is counted.

    Raises:
        NoMoney: what is left buys less than a minute; the message has the figures.
    """
    limit = allowed.tightest
    if limit is None:
        return
    end = allowed.deadline(usd_per_hour or 0.0)
    if end is None or end - allowed.at >= LEAST_SECONDS:
        return
    price = f" at {rate(usd_per_hour)}" if usd_per_hour else ""
    raise NoMoney(
        f"The budget of {dollars(limit.usd)} for {limit.period} does not buy another minute{price}:"
        f" {dollars(limit.spent.usd)} is spent, {dollars(limit.left)} is left.",
        hint=f"It renews {_moment(limit.renews_at)}; raise budget.{limit.kind}_usd to go on before that.",
        retry_after=limit.renews_at - allowed.at,
    )


def _limits(budget: Budget, entries: Sequence[Entry], now: float) -> Iterator[Limit]:
    if budget.per_day_usd is not None:
        start, end = day_of(now)
        yield Limit("per_day", budget.per_day_usd, spent(entries, start, now), _period(start, 10), end)
    if budget.per_month_usd is not None:
        start, end = month_of(now)
        yield Limit("per_month", budget.per_month_usd, spent(entries, start, now), _period(start, 7), end)


def _period(start: float, letters: int) -> str:
    return datetime.fromtimestamp(start, UTC).isoformat()[:letters]


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _stretches(now: float, meters: Sequence[Meter]) -> Iterator[tuple[float, float]]:
    """From ``now`` on, stretches in which neither the rate changes nor a period ends."""
    first = datetime.fromtimestamp(day_of(now)[0], UTC)
    days = [(first + timedelta(days=n)).timestamp() for n in range(1, _HORIZON_DAYS)]
    cuts = sorted({now, *days, *(m.until for m in meters if now < m.until < days[-1])})
    yield from pairwise(cuts)


def _begins(kind: Period, start: float, now: float) -> bool:
    """Whether a new period starts there: what was left of the old one is gone, and all of the new one is there."""
    period = day_of(start) if kind == "per_day" else month_of(start)
    return start > now and start == period[0]


# --- what people should hear ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Alert:
    """A limit has reached a share. ``key`` names limit, period and share: what was told once is not told again."""

    key: str
    text: str


def alerts(allowed: Allowance) -> list[Alert]:
    """What should be known now: for each limit the highest share that it has reached."""
    return [alert for limit in allowed.limits if (alert := _alert(limit))]


def _alert(limit: Limit) -> Alert | None:
    reached = max((percent for percent in ALERT_PERCENTS if limit.share * 100 >= percent), default=None)
    if reached is None:
        return None
    kind = "day" if limit.kind == "per_day" else "month"
    text = (
        f"{limit.share:.0%} of the budget for this {kind} ({limit.period}, UTC) is spent:"
        f" {dollars(limit.spent.usd)} of {dollars(limit.usd)}."
    )
    if limit.left == 0.0:
        text += f" Nothing is started before {_moment(limit.renews_at)}."
    return Alert(f"budget {limit.period} {reached}", text)
