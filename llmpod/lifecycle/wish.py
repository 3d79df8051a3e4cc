"""Not an order by itself: what the proxy's wishes make of the order in force. Pure; the clock is an argument.

The proxy wishes that a model be started because a request needs it, or stopped because nobody does. A wish is heard
once: the order that it led to, and also the one that it could not change, remembers its time. Never by its age, for
clocks are set and two machines' clocks differ.

| order              | wish to start                       | wish to stop | no wish                               |
|--------------------|-------------------------------------|--------------|---------------------------------------|
| up                 | a run that gave up: a new run       | down: idle   | proxy silent and nobody used it: down |
| down, by a machine | up, unless it costs what it may not | -            | -                                     |
| down, by a person  | refused                             | -            | -                                     |
"""

from dataclasses import dataclass, replace

from llmpod.config import DEFAULT_MODEL
from llmpod.lifecycle.money import Allowance, dollars, rate
from llmpod.lifecycle.want import FIRST_RUN, first_order
from llmpod.model import Direction, Phase, Record, Refusal, Usage, Want

IDLE, PROXY, REQUEST = "idle", "proxy", "request"
OF_MACHINES = frozenset({IDLE, PROXY, "expiry", "budget"})
"""Who orders "down" without a person's word."""
SILENT_SECONDS = 120.0  # the proxy writes every 30 s while a model is up


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms requests start a model.

    Args:
        on_request: whether they do at all; else it runs always, as far as people, time and money let it.
        paid: starting it costs money, which only ``may_pay`` allows.
        idle_seconds: from its last byte to its stop.
        group: of those that bear the same name only one runs at a time; empty: it is in none.
        name: of the model, as the configuration has it.
        elsewhere: the configuration is not the one that commands go by unless they are told another.
    """

    on_request: bool = False
    paid: bool = False
    may_pay: bool = False
    idle_seconds: float = 1800.0
    group: str = ""
    name: str = DEFAULT_MODEL
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of a wish: the order in force from now on, and why a start was refused, if it was."""

    order: Want
    refusal: Refusal | None = None


def asleep(now: float, usage: Usage | None = None) -> Want:
    """What is wanted of a model that requests start, until one comes that ``usage`` does not know of yet."""
    reason = "it starts with the first request"
    return Want(Direction.DOWN, at=now, by=IDLE, reason=reason, heard=latest(usage or Usage()))


def latest(usage: Usage) -> float:
    """When the proxy wished last, for whichever direction; 0: never."""
    return max(usage.wake_wanted or 0.0, usage.rest_wanted or 0.0)


def heard(want: Want, record: Record, usage: Usage, *, terms: Terms, allowed: Allowance) -> Heard | None:
    """What the proxy's last wish makes of an order; None: the order stands as it is.

    Args:
        want: the order in force.
        record: the model's.
        usage: what the proxy said of it.
        terms: on which terms requests start it.
        allowed: what the budget allows.
    """
    now = allowed.at
    if not terms.on_request:
        kept_down = want.direction is Direction.DOWN and want.by in (IDLE, PROXY)
        return Heard(replace(first_order(now), heard=want.heard)) if kept_down else None
    at = latest(usage)
    if not at or at == want.heard or (want.heard is None and at <= want.at):
        return None
    if at != usage.wake_wanted:
        return _rested(want, at, now, usage.rest_reason)
    return _woken(want, record, at, terms=terms, allowed=allowed)


def barred(want: Want, record: Record, *, terms: Terms, allowed: Allowance) -> Refusal | None:
    """Why a wish to start a model would be refused if it came now, so that nobody makes room for it; or None.

    Its ``at`` is the order's, which stays the same from pass to pass; ``retry_at`` is when it holds no longer.
    """
    up = want.direction is Direction.UP and not _gave_up(record)
    refusal = (
        None if up or not terms.on_request else _refusal(want, record, want.at, terms=terms, allowed=allowed)
    )
    return refusal and replace(refusal, retry_at=refusal.retry_at or want.until)


def forgotten(want: Want, record: Record, usage: Usage, *, terms: Terms, now: float) -> Want | None:
    """The "down" for a model that nobody uses while the proxy, which would say so, is silent.

    Args:
        want: the order in force.
        record: the model's.
        usage: what the proxy said last.
        terms: on which terms requests start it.
        now: by this machine's own clock, as the proxy's times are.
    """
    if not terms.on_request or want.direction is Direction.DOWN or record.ready_at is None:
        return None
    last = max(usage.last_byte or 0.0, usage.at or 0.0, record.ready_at)
    if now - last < terms.idle_seconds + SILENT_SECONDS:
        return None
    return Want(Direction.DOWN, at=now, by=IDLE, reason="nobody used it", heard=want.heard)


def _rested(want: Want, at: float, now: float, why: str) -> Heard:
    if want.direction is Direction.DOWN:
        return Heard(replace(want, heard=at))
    by, reason = (PROXY, why) if why else (IDLE, "nobody used it")
    return Heard(Want(Direction.DOWN, at=now, by=by, reason=reason, heard=at))


def _woken(want: Want, record: Record, at: float, *, terms: Terms, allowed: Allowance) -> Heard:
    if want.direction is Direction.UP and not _gave_up(record):
        return Heard(replace(want, heard=at))
    refusal = _refusal(want, record, at, terms=terms, allowed=allowed)
    if refusal is not None:
        return Heard(replace(want, heard=at), refusal)
    return Heard(Want(Direction.UP, at=allowed.at, by=REQUEST, reason="a request needs it", heard=at))


def _gave_up(record: Record) -> bool:
    return record.phase is Phase.FAILED and record.next_try_at is None


def _refusal(want: Want, record: Record, at: float, *, terms: Terms, allowed: Allowance) -> Refusal | None:
    by_person = want.by not in {*OF_MACHINES, REQUEST, FIRST_RUN}
    alone = terms.name == DEFAULT_MODEL
    which = " --config FILE" if terms.elsewhere else ""  # where it is, callers are not told (T35)
    up = f"python3 manage_pod.py{which} up" + ("" if alone else f" {terms.name}")
    if want.direction is Direction.DOWN and by_person:
        who = "The model" if alone else terms.name
        why = f"{who} was ordered down (by {want.by}) and stays so until somebody orders it up."
        return Refusal(at, 503, why, up)
    if not terms.paid:
        return None
    limit = allowed.tightest
    spent = f"{dollars(limit.spent.usd)} of {dollars(limit.usd)} for {limit.period}" if limit else ""
    if not terms.may_pay:
        figures = "; ".join(filter(None, (rate(record.usd_per_hour), spent and f"spent: {spent}")))
        why = f"Starting it costs money ({figures}), which a request may not do."
        return Refusal(at, 402, why, f"Set `wake_on_request`, or start it: {up}")
    if limit is not None and allowed.exhausted:
        hint = f"Raise `budget.{limit.kind}_usd` to go on before it renews."
        return Refusal(at, 402, f"The budget is used up ({spent}).", hint, limit.renews_at)
    return None
