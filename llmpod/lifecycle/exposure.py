"""Not what was spent: what live machines can still cost, and what the account spends that nobody can explain. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmpod.lifecycle.money import rate
from llmpod.lifecycle.records import end_of
from llmpod.model import Instance, Observed, Phase, Record

STRAY_USD_PER_HOUR = 0.05  # disks and volumes are in RunPod's rate, too: 500 GB of disk are 0.07 an hour
_ALIVE = frozenset(Phase) - {Phase.STOPPED, Phase.FAILED}


@dataclass(frozen=True, slots=True)
class WorstCase:
    """What live machines can cost from now until their deadlines.

    ``usd`` is None when it is not known, for want of a price or a deadline of the models in ``unknown``; ``until``
    is the last of the deadlines, None without a machine, and where nothing limits a free one.
    """

    usd: float | None
    until: float | None = None
    unknown: tuple[str, ...] = ()


def worst_case(records: Iterable[Record], now: float, *, stop: float | None = None) -> WorstCase:
    """The bound that holds even if nobody looks again: deadlines are armed inside the machines.

    Args:
        records: of all models; those without a machine cost nothing.
        now: the time.
        stop: the deadline by money, if there is one.
    """
    usd, until, unknown = 0.0, None, []
    for record in records:
        if record.phase not in _ALIVE:
            continue
        end = _deadline(record)
        if end is None or record.usd_per_hour is None:
            unknown.append(record.model or record.name)
            continue
        end = max(now, end if stop is None else min(end, stop))
        usd += (end - now) / 3600 * record.usd_per_hour
        if record.usd_per_hour or end_of(record) is not None:
            until = end if until is None else max(until, end)
    return WorstCase(None if unknown else usd, until, tuple(unknown))


def _deadline(record: Record) -> float | None:
    """The pass ends it at its deadline; without a pass, its switch does at its own."""
    known = [at for at in (record.deadline, record.switch_at) if at is not None]
    return max(known, default=None)


@dataclass(frozen=True, slots=True)
class Unexplained:
    """Spending of the account that is not ours.

    Args:
        foreign: machines in the account that are not of this installation; reported, never touched.
        stray_usd_per_hour: what the account spends beyond its listed machines; None: not known.
        alarms: in words, what a person should look at; empty when all is explained.
    """

    foreign: tuple[Instance, ...]
    stray_usd_per_hour: float | None
    alarms: tuple[str, ...] = ()


def unexplained(
    listed: Sequence[Instance], ours: Iterable[str], account_usd_per_hour: float | None
) -> Unexplained:
    """Compare what the account spends with what we know of.

    Args:
        listed: all machines of the account.
        ours: the ids of those of this installation.
        account_usd_per_hour: RunPod's own figure (``currentSpendPerHr``, storage included), or None.
    """
    known = set(ours)
    foreign = tuple(seen for seen in listed if seen.id not in known)
    rates = [0.0 if seen.observed is Observed.EXITED else seen.usd_per_hour for seen in listed]
    sure = [rate for rate in rates if rate is not None]
    complete = account_usd_per_hour is not None and len(sure) == len(rates)
    stray = account_usd_per_hour - sum(sure) if complete and account_usd_per_hour is not None else None
    alarms = [_foreign_text(foreign)] if foreign else []
    if stray is not None and stray > STRAY_USD_PER_HOUR:
        alarms.append(
            f"RunPod charges ${account_usd_per_hour:.2f}/h, but the listed pods explain only ${sum(sure):.2f}/h:"
            f" ${stray:.2f}/h are unexplained (serverless workers, volumes, or a pod that is not listed)."
            " See https://console.runpod.io/billing."
        )
    return Unexplained(foreign, stray, tuple(alarms))


def _foreign_text(foreign: Sequence[Instance]) -> str:
    named = ", ".join(
        f"{seen.id} ({seen.name}, {rate(seen.usd_per_hour)}"
        f"{', stopped' if seen.observed is Observed.EXITED else ''})"
        for seen in foreign
    )
    return f"Not of this installation, and left alone: {named}."
