"""Not a timer: when the next pass has something to do. Pure; the clock is an argument.

A scheduler comes every five minutes. What must not wait for it has a moment of its own here:

| what                                    | when                                             |
|-----------------------------------------|--------------------------------------------------|
| a run's deadline, an order's end        | then                                             |
| a machine whose own switch comes first  | a minute before                                  |
| a retry after a failure                 | then                                             |
| a create without a clear answer         | every 20 s                                       |
| a machine that is not listed            | every 20 s                                       |
| a machine that starts                   | every 30 s                                       |
| a machine that ends, or is to be        | every 10 s                                       |
| replaced when nobody is answered by it  |                                                  |
| a name that may still show up           | 30 s, 2 min and 10 min after it was given up     |
"""

from collections.abc import Iterator, Mapping

from llmpod.lifecycle.decide import MISSING_GRACE_SECONDS, RENEW_SECONDS
from llmpod.lifecycle.state import State
from llmpod.lifecycle.want import lapsed
from llmpod.model import Direction, Phase, Record, Want

LATE_SECONDS = 20.0  # a pass that could not carry out a deadline is followed by another one
SUSPECT_LOOKS = (30.0, 120.0, 600.0)
_EVERY: Mapping[Phase, float] = {
    Phase.INTENT: 20.0,
    Phase.UNKNOWN: 20.0,
    Phase.CREATED: 30.0,
    Phase.BOOTING: 30.0,
    Phase.LOADING: 30.0,
    Phase.TERMINATING: 10.0,
}


def next_look(state: State, orders: Mapping[str, Want], now: float) -> float | None:
    """When a pass is due, or None when there is nothing to wait for.

    Args:
        state: as the last pass, which was just now, has left it.
        orders: by model; one that has none is wanted.
        now: epoch seconds, by the provider's clock.
    """
    return min(_moments(state, orders, now), default=None)


def _moments(state: State, orders: Mapping[str, Want], now: float) -> Iterator[float]:
    yield from (want.until for want in orders.values() if want.until is not None and want.until > now)
    for model, record in state.records.items():
        want = orders.get(model)
        if record.phase not in (Phase.STOPPED, Phase.FAILED):
            yield from _of_machine(record, now)
        elif record.next_try_at and (want is None or lapsed(want, now).direction is Direction.UP):
            yield from _future(record.next_try_at, now)
        for _, given_up in record.suspects:
            yield from (given_up + look for look in SUSPECT_LOOKS if given_up + look > now)


def _of_machine(record: Record, now: float) -> Iterator[float]:
    if record.phase in _EVERY:
        yield now + _EVERY[record.phase]
    if record.outdated:
        yield now + _EVERY[Phase.TERMINATING]
    if record.missing_since is not None:
        yield now + MISSING_GRACE_SECONDS
    if record.deadline is not None:
        yield record.deadline if record.deadline > now else now + LATE_SECONDS
    if record.switch_at is not None:
        yield from _future(record.switch_at - RENEW_SECONDS, now)


def _future(moment: float, now: float) -> Iterator[float]:
    """What has passed, the pass of just now has seen to."""
    if moment > now:
        yield moment
