"""Not their look: the figures of ``cost``, as one document whose names are stable. Pure but for what it is given.

Money is US dollars, times are epoch seconds, days and months are UTC. ``null`` means that nobody knows, and a ``why``
beside it says why; it never means nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpod.backends.runpod_account import Balance, Charge, charged
from llmpod.cli.saved import Saved
from llmpod.config import PodConfig
from llmpod.lifecycle.book import Book, Entry
from llmpod.lifecycle.exposure import unexplained, worst_case
from llmpod.lifecycle.money import Allowance, allowance
from llmpod.lifecycle.records import end_of
from llmpod.lifecycle.spending import assumed, by_day, by_model, day_of, month_of, spent
from llmpod.model import Instance, Record

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outside:
    """What others than our own files say; None is unknown, for the reason beside it. ``at`` is the time.

    ``bills``: whether RunPod charges for anything here.
    """

    at: float
    saved: Saved
    listed: Sequence[Instance] | None = None
    no_list: str = ""
    charges: tuple[Charge, ...] | None = None
    no_bill: str = ""
    bills: bool = True
    balance: Balance = field(default_factory=Balance)


@dataclass(frozen=True, slots=True)
class Inside:
    """What our own files say.

    Args:
        book: the ledger, with what the listing has just shown.
        records: the state's, by model.
        ours: ids of all machines that are or were ours.
        problems: what could not be read.
    """

    book: Book
    records: Mapping[str, Record]
    ours: frozenset[str]
    problems: tuple[str, ...] = field(default=())


def figures(inside: Inside, outside: Outside, config: PodConfig) -> Figures:
    """All that ``cost --json`` prints."""
    entries, now = inside.book.entries, outside.at
    allowed = allowance(config.budget, assumed(entries, config.max_hourly_cost), now)
    return {
        "at": now,
        "currency": "USD",
        "day": _period(entries, *day_of(now), now=now),
        "month": _period(entries, *month_of(now), now=now),
        "models": _models(entries, now),
        "days": [
            {"date": day.isoformat(), "usd": sum_.usd, "unknown_hours": sum_.unknown_hours}
            for day, sum_ in by_day(entries, now)
        ],
        "live": [_live(entry, inside.records.values(), now) for entry in inside.book.open],
        "worst_case": _worst_case(inside.records.values(), allowed, now),
        "budget": _budget(allowed),
        "cache": _cache(outside.saved, entries),
        "billed": _billed(entries, outside, now),
        "account": _account(outside.balance),
        "unexplained": _unexplained(inside, outside),
        "ledger": {"machines": len(entries), "damaged_lines": inside.book.damaged},
        "problems": list(inside.problems),
    }


def _period(entries: Sequence[Entry], since: float, until: float, *, now: float) -> Figures:
    sum_ = spent(entries, since, min(until, now))
    return {"since": since, "until": until, "usd": sum_.usd, "unknown_hours": sum_.unknown_hours}


def _models(entries: Sequence[Entry], now: float) -> list[Figures]:
    month = by_model(entries, month_of(now)[0], now)
    day = by_model(entries, day_of(now)[0], now)
    return [
        {
            "model": model or None,
            "day_usd": day[model].usd if model in day else 0.0,
            "month_usd": sum_.usd,
            "unknown_hours": sum_.unknown_hours,
        }
        for model, sum_ in month.items()
    ]


def _live(entry: Entry, records: Iterable[Record], now: float) -> Figures:
    record = next((r for r in records if r.instance_id == entry.pod), None)
    so_far = spent([entry], entry.opened_at, now)
    return {
        "pod_id": entry.pod,
        "model": entry.model or None,
        "gpu": entry.gpu or None,
        "usd_per_hour": entry.usd_per_hour,
        "since": entry.opened_at,
        "usd": None if so_far.unknown_hours else so_far.usd,
        "deadline": end_of(record) if record else entry.until,
    }


def _worst_case(records: Iterable[Record], allowed: Allowance, now: float) -> Figures:
    worst = worst_case(records, now, stop=allowed.deadline())
    return {"usd": worst.usd, "until": worst.until, "unknown": list(worst.unknown)}


def _budget(allowed: Allowance) -> Figures | None:
    """None: there is no budget."""
    if not allowed.limits:
        return None
    return {
        "limits": [
            {
                "kind": limit.kind,
                "usd": limit.usd,
                "spent_usd": limit.spent.usd,
                "left_usd": limit.left,
                "share": limit.share,
                "renews_at": limit.renews_at,
            }
            for limit in allowed.limits
        ],
        "left_usd": allowed.left_usd,
        "binding": allowed.binding,
        "exhausted": allowed.exhausted,
        "deadline": allowed.deadline(),
    }


def _cache(saved: Saved, entries: Sequence[Entry]) -> Figures:
    price = next((e.usd_per_hour for e in reversed(entries) if e.usd_per_hour), None)
    why = saved.why
    if not why and saved.seconds is None:
        why = "the model has not answered since the proxy's start, so nobody knows how long it takes"
    elif not why and price is None:
        why = "no machine's price is known"
    return {
        "answers": saved.answers,
        "model_seconds": saved.seconds,
        "usd_per_hour": price,
        "usd": saved.usd(price),
        "since_seconds": saved.since_seconds,
        "why": why,
    }


def _billed(entries: Sequence[Entry], outside: Outside, now: float) -> Figures:
    """RunPod's bill for our machines against our own figure, over this month's whole hours."""
    since, until = month_of(now)[0], now - now % 3600
    own = {entry.pod: spent([entry], since, until) for entry in entries}
    own_usd = sum(sum_.usd for sum_ in own.values())
    found: Figures = {"since": since, "until": until, "own_usd": own_usd, "why": outside.no_bill}
    found["applies"] = outside.bills
    if outside.charges is None:
        return {**found, "usd": None, "difference_usd": None, "others_usd": None, "pods": None}
    bill = charged(tuple(charge for charge in outside.charges if charge.at < until), since)
    usd = sum(bill.get(pod, 0.0) for pod in own)
    pods = [
        {"pod_id": pod, "own_usd": sum_.usd, "billed_usd": bill.get(pod, 0.0)}
        for pod, sum_ in own.items()
        if sum_.usd or sum_.unknown_hours or pod in bill
    ]
    others = sum(bill.values()) - usd
    return {**found, "usd": usd, "difference_usd": own_usd - usd, "others_usd": others, "pods": pods}


def _account(balance: Balance) -> Figures:
    return {
        "balance_usd": balance.usd,
        "usd_per_hour": balance.usd_per_hour,
        "spend_limit_usd_per_hour": balance.spend_limit,
        "hours_left": balance.hours_left,
        "why": balance.why,
    }


def _unexplained(inside: Inside, outside: Outside) -> Figures:
    if outside.listed is None:
        return {"foreign": None, "stray_usd_per_hour": None, "alarms": [], "why": outside.no_list}
    found = unexplained(outside.listed, inside.ours, outside.balance.usd_per_hour)
    return {
        "foreign": [
            {"pod_id": seen.id, "name": seen.name, "usd_per_hour": seen.usd_per_hour}
            for seen in found.foreign
        ],
        "stray_usd_per_hour": found.stray_usd_per_hour,
        "alarms": list(found.alarms),
        "why": outside.balance.why if found.stray_usd_per_hour is None else "",
    }
