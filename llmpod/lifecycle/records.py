"""Not a decision: how a record changes when something has happened. Pure; times are epoch seconds."""

from dataclasses import replace

from llmpod.model import Health, Instance, Phase, Record

SUSPECT_SECONDS = 24 * 3600.0
FAR_SECONDS = 366 * 24 * 3600.0
"""A run that lasts longer has no limit that anybody would want to read."""
_FALL_SECONDS = 5.0  # an uptime may be rounded; a restart takes it back to zero


def begin(record: Record, name: str, *, deadline: float, now: float) -> Record:
    """The record that must be on disk before a create call: the intent.

    Args:
        record: what is remembered.
        name: the unique name of this create call.
        deadline: the end of the run; it is armed inside the machine and cannot be moved there.
        now: the time.
    """
    return replace(
        record,
        phase=Phase.INTENT,
        name=name,
        instance_id=None,
        base_url=None,
        gpu="",
        usd_per_hour=None,
        intent_at=now,
        created_at=None,
        ready_at=None,
        ended_at=None,
        ending_at=None,
        deadline=record.deadline or deadline,
        switch_at=deadline,
        uptime_seconds=None,
        crashes=0,
        next_try_at=None,
        probe_failures=0,
        missing_since=None,
        delete_accepted=False,
        listed=False,
        down_reason="",
        error="",
        outdated=False,
    )


def adopt(record: Record, seen: Instance, *, runtime_seconds: float, now: float) -> Record:
    """The record after the provider has shown us our machine."""
    created = min(seen.created_at or now, now)
    if record.instance_id not in (None, seen.id):  # the provider has moved it to another machine
        record = replace(record, phase=Phase.CREATED, created_at=None, ready_at=None, uptime_seconds=None)
    return replace(
        record,
        phase=record.phase if record.created_at else Phase.CREATED,
        name=record.name or seen.name,  # people rename pods; its key was made from the first name
        instance_id=seen.id,
        base_url=seen.base_url,
        gpu=seen.gpu or record.gpu,
        usd_per_hour=seen.usd_per_hour if seen.usd_per_hour is not None else record.usd_per_hour,
        intent_at=record.intent_at or created,
        created_at=record.created_at or created,
        deadline=record.deadline or seen.switch_at or created + runtime_seconds,
        switch_at=seen.switch_at or record.switch_at,
        spec_digest=seen.digest or record.spec_digest,
        uptime_seconds=seen.uptime_seconds,
        crashes=record.crashes + 1 if _restarted(record, seen) else record.crashes,
        missing_since=None,
    )


def _restarted(record: Record, seen: Instance) -> bool:
    """A provider restarts a crashed container by itself and goes on billing; its uptime is what tells."""
    before, now = record.uptime_seconds, seen.uptime_seconds
    return before is not None and now is not None and now < before - _FALL_SECONDS


def not_created(record: Record, why: str, *, retry_at: float | None) -> Record:
    """The record after the provider has said clearly that nothing was created.

    A run that never had a machine has used none of its time, so its deadline starts anew with the next try.
    """
    return replace(
        record,
        phase=Phase.STOPPED if retry_at is not None else Phase.FAILED,
        error=why,
        next_try_at=retry_at,
        name="",
        intent_at=None,
        deadline=record.deadline if record.attempts else None,
    )


def ending(record: Record, now: float) -> Record:
    """The record before a delete is ordered."""
    return replace(record, phase=Phase.TERMINATING, ending_at=record.ending_at or now)


def ended(record: Record, phase: Phase, now: float) -> Record:
    """The record after list and look-up have shown that the machine is gone.

    It lets go of the name, too: should the machine show up again after all, it is nobody's, and the audit ends it.
    """
    return replace(
        record if record.delete_accepted else suspect(record, now),
        phase=phase,
        name="",
        instance_id=None,
        base_url=None,
        ended_at=now,
        intent_at=None,
        ending_at=None,
        missing_since=None,
        delete_accepted=False,
        listed=False,
        outdated=False,
    )


def suspect(record: Record, now: float) -> Record:
    """Remember the name of a creation that ended unclear; a machine of that name is destroyed when it appears."""
    if not record.name:
        return record
    kept = tuple(s for s in record.suspects if now - s[1] < SUSPECT_SECONDS)
    return replace(record, suspects=(*kept, (record.name, now))[-20:])


def end_of(record: Record) -> float | None:
    """When its run ends, for people and programs to read; None where nothing limits it, or nobody knows.

    A run without a limit ends in ten years: in the state None is a deadline that got lost, and a new one is made.
    """
    began = record.created_at or record.intent_at or record.run_at
    if record.deadline is None or began is None:
        return None
    return record.deadline if record.deadline - began < FAR_SECONDS else None


def hopeless(record: Record, health: Health) -> str:
    """Why a machine is ended and no other one tried, by what its server answers; empty: there is hope.

    A server that was ready may recover.
    """
    if health.open_to_all:
        return "the model server answered without its key, so anybody could use it"
    return health.detail if health.wants_other_key and record.ready_at is None else ""
