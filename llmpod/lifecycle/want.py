"""Not a scheduler: turns the durable orders into what is wanted right now. Pure; the clock is an argument."""

from dataclasses import replace

from llmpod.lifecycle.money import Allowance, dollars
from llmpod.model import Direction, Record, Want

FIRST_RUN = "first run"
BY_HAND = "ordered by hand"  # the reason of a person's word: there is no other


def first_order(now: float) -> Want:
    """What an installation wants that was never told anything: the model up."""
    return Want(Direction.UP, at=now, by=FIRST_RUN, reason="no order was ever given")


def expired(record: Record, want: Want, now: float) -> Want | None:
    """The sticky "down" that follows from a passed deadline, or None while there is time left.

    Another order than the one that the run obeys starts a new run, so the old run's deadline does not bind it.
    (Not "a newer one": a clock may have been set back.)
    """
    if want.direction is Direction.DOWN or record.deadline is None or now < record.deadline:
        return None
    if record.run_at is not None and want.at != record.run_at:
        return None
    return Want(Direction.DOWN, at=now, by="expiry", reason="the runtime limit was reached", heard=want.heard)


def lapsed(want: Want, now: float) -> Want:
    """An order with an end turns round when the end has come."""
    if want.until is None or now < want.until:
        return want
    other = Direction.DOWN if want.direction is Direction.UP else Direction.UP
    return replace(want, direction=other, until=None, reason=f"the order of {want.by} ended")


def overruled(want: Want, record: Record, allowed: Allowance, now: float) -> Want | None:
    """The sticky "down" that an order has become by a passed deadline or a used-up budget; None: it stands."""
    return expired(record, want, now) or overspent(want, allowed, now)


def overspent(want: Want, allowed: Allowance, now: float) -> Want | None:
    """The sticky "down" that follows from a used-up budget, or None while there is some left."""
    limit = allowed.tightest
    if want.direction is Direction.DOWN or limit is None or not allowed.exhausted:
        return None
    spent = f"{dollars(limit.spent.usd)} of {dollars(limit.usd)} for {limit.period}"
    reason = f"the budget is used up ({spent})"
    return Want(Direction.DOWN, at=now, by="budget", reason=reason, heard=want.heard)
