"""Not a messenger: what in the life of a model is worth telling a person. Pure."""

from collections.abc import Iterator

from llmpod.lifecycle.money import rate
from llmpod.lifecycle.nouns import thing
from llmpod.lifecycle.supervision import Notes
from llmpod.model import Event, EventKind, Phase, Record

STUCK_SECONDS = 120.0
_KEPT_SECONDS = 40 * 24 * 3600.0  # longer than any period for which an alarm is raised once


def changes(model: str, before: Record, after: Record, now: float) -> Iterator[Event]:
    """The events between two records of one model."""
    if after.instance_id and after.instance_id != before.instance_id:
        where = f"{thing(after)} {after.instance_id} on {after.gpu or '?'}"
        yield Event(EventKind.CREATED, model, f"{where}, {rate(after.usd_per_hour)}", now)
    if after.ready_at is not None and before.ready_at is None:
        took = f" after {after.ready_at - after.created_at:.0f} s" if after.created_at else ""
        yield Event(EventKind.READY, model, f"{after.served_name or after.model} answers{took}", now)
    if before.instance_id and not after.instance_id:
        why = after.down_reason or after.error or "replaced"
        yield Event(EventKind.TERMINATED, model, f"{thing(before)} {before.instance_id} is gone: {why}", now)
    if after.phase is Phase.FAILED and before.phase is not Phase.FAILED:
        yield Event(EventKind.FAILED, model, f"gave up: {after.error}", now)


def alarms(model: str, record: Record, *, soon: float, now: float) -> Iterator[tuple[str, Event]]:
    """What holds for a while and is told once; each with the key under which that is remembered.

    Args:
        model: its name.
        record: how it stands.
        soon: how many seconds before the deadline it counts as near.
        now: the time.
    """
    if record.instance_id is None:
        return
    called = f"{thing(record)} {record.instance_id}"
    if record.deadline is not None and 0 < record.deadline - now <= soon:
        text = f"{called} ends in {(record.deadline - now) / 60:.0f} min; `up` orders a new run"
        yield f"expiring {model} {record.deadline:.0f}", Event(EventKind.EXPIRING, model, text, now)
    if (
        record.ending_at is not None
        and record.missing_since is None
        and now - record.ending_at > STUCK_SECONDS
    ):
        text = f"{called} is still there {now - record.ending_at:.0f} s after its delete was ordered"
        yield f"stuck {record.name}", Event(EventKind.LEAK, model, text, now)


def given_up(notes: Notes | None) -> Iterator[tuple[str, Event]]:
    """The alarm of a proxy that crashed too often; once an hour, for it is tried again meanwhile."""
    if notes is not None and notes.gave_up and (last := notes.last_crash) is not None:
        text = f"the proxy crashed {notes.crashes} times, too often within a minute, and was given up: {last}"
        yield f"proxy given up {last.at // 3600:.0f}", Event(EventKind.FAILED, "", text, last.at)


def remembered(told: dict[str, float], now: float) -> dict[str, float]:
    """Those alarms that must not be raised again yet."""
    return {key: at for key, at in told.items() if now - at < _KEPT_SECONDS}
