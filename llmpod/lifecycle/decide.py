"""Not an actor: from what is remembered, wanted and seen to the next step. Pure; the clock is an argument.

Every step carries the record that must be on disk *before* its effect happens, so a crash between the two
leaves the intention behind, never an unknown machine.

| phase          | wanted up, machine seen           | wanted up, not seen                | wanted down            |
|----------------|-----------------------------------|------------------------------------|------------------------|
| stopped,failed | (adopted or destroyed as orphan)  | create, after back-off             | rest                   |
| intent,unknown | adopt                             | look until the grace ends, close   | destroy / look, close  |
| created…ready  | probe; failed, too slow, or       | wait, then vanished                | destroy                |
|                | outdated and free: destroy        |                                    |                        |
| terminating    | destroy again                     | gone once a delete was accepted    | the same               |
"""

from dataclasses import dataclass, replace
from enum import Enum, auto

from llmpod.lifecycle.nouns import thing, vanished
from llmpod.lifecycle.records import adopt, ended, ending, hopeless, suspect
from llmpod.model import Direction, Health, Instance, Observed, Phase, Record, Want

MISSING_GRACE_SECONDS = 20.0
MIN_RUN_SECONDS = 60.0
MAX_BACKOFF_SECONDS = 1800.0
RENEW_SECONDS = 60.0


class Act(Enum):
    """What to do after the step's record is saved."""

    REST = auto()  # nothing more in this pass
    AGAIN = auto()  # decide again with the saved record
    CREATE = auto()
    DESTROY = auto()
    PROBE = auto()


@dataclass(frozen=True, slots=True)
class Step:
    """One decision: save ``record``, then ``act``; ``why`` is for people. ``targets`` are ids to destroy."""

    act: Act
    why: str
    record: Record
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits that bind one model. Times in seconds.

    A machine that was made from another configuration than ``digest`` is replaced; empty: never.
    """

    runtime_seconds: float
    startup_timeout_seconds: float
    max_restarts: int
    restart_backoff_seconds: float
    unhealthy_after: int
    restart_vanished: bool
    create_grace_seconds: float
    max_crashes: int = 4
    expiring_soon_seconds: float = 300.0
    max_usd_per_hour: float | None = None
    digest: str = ""


def decide(
    record: Record, want: Want, seen: Instance | None, *, policy: Policy, now: float, free: bool = True
) -> Step:
    """The next step for one model.

    Args:
        record: what we remember.
        want: the order in force.
        seen: the machine that bears the record's name or id, as listed (and looked up by id) just now.
        policy: the limits.
        now: epoch seconds.
        free: nobody is answered by the machine, so that it may be replaced by another one.
    """
    if want.direction is Direction.DOWN:
        return _down(record, want, seen, grace=policy.create_grace_seconds, now=now)
    if want.at != record.run_at:
        return _new_run(record, want, policy=policy, now=now)
    if record.phase in (Phase.STOPPED, Phase.FAILED):
        return _start(record, digest=policy.digest, now=now)
    if record.phase in (Phase.INTENT, Phase.UNKNOWN):
        return _resolve(record, seen, grace=policy.create_grace_seconds, now=now)
    if record.phase is Phase.TERMINATING:
        return _terminating(record, seen, policy=policy, now=now)
    return _watch(record, seen, policy=policy, now=now, free=free)


def after_probe(
    record: Record, health: Health, *, policy: Policy, now: float, answering: bool = False
) -> Step:
    """What a probe's answer means for the model; ``answering``: somebody else hears from its server meanwhile."""
    if why := hopeless(record, health):
        return _destroy(replace(record, attempts=policy.max_restarts + 1, error=why), why, now)
    if health.ready:
        ready = replace(
            record, phase=Phase.READY, ready_at=record.ready_at or now, probe_failures=0, error=""
        )
        return Step(Act.REST, "ready", ready)
    if record.ready_at is None:
        return Step(Act.REST, health.detail, replace(record, phase=health.phase, error=health.detail))
    if answering:  # some do one thing at a time: to end it for its silence would cut what it says
        well = replace(record, phase=Phase.READY, probe_failures=0, error="")
        return Step(Act.REST, f"at work: {health.detail}", well)
    failures = record.probe_failures + 1
    sick = replace(record, phase=Phase.UNHEALTHY, probe_failures=failures, error=health.detail)
    if failures < policy.unhealthy_after:
        return Step(Act.REST, f"probe failed {failures} times: {health.detail}", sick)
    return _failed(sick, f"the model server stopped answering: {health.detail}", policy=policy, now=now)


# --- wanted up ------------------------------------------------------------------------------------------------
def _new_run(record: Record, want: Want, *, policy: Policy, now: float) -> Step:
    why = f"ordered by {want.by}"
    if record.phase in (Phase.STOPPED, Phase.FAILED):
        fresh = Record(run_at=want.at, suspects=record.suspects, hold_until=record.hold_until)
        return Step(Act.AGAIN, why, fresh)
    renewed = replace(record, run_at=want.at, attempts=0, deadline=now + policy.runtime_seconds)
    return Step(Act.AGAIN, why, renewed)


def _start(record: Record, *, digest: str, now: float) -> Step:
    if record.phase is Phase.FAILED and record.next_try_at is None:
        if record.created_at is None and digest != record.spec_digest:
            fresh = replace(record, phase=Phase.STOPPED, attempts=0, spec_digest=digest)
            return Step(Act.AGAIN, "the configuration that was refused has changed", fresh)
        return Step(Act.REST, f"gave up: {record.error}", record)
    if record.hold_until is not None and now < record.hold_until:
        return Step(Act.REST, "looking for what a lost state file may have known", record)
    if record.next_try_at is not None and now < record.next_try_at:
        return Step(Act.REST, f"next try in {record.next_try_at - now:.0f} s after: {record.error}", record)
    if record.deadline is not None and record.deadline - now < MIN_RUN_SECONDS:
        return Step(Act.REST, "too little of the run is left for another start", record)
    return Step(Act.CREATE, "wanted and not there", record)


def _resolve(record: Record, seen: Instance | None, *, grace: float, now: float) -> Step:
    if seen is not None:
        found = replace(record, phase=Phase.CREATED, instance_id=seen.id, error="")
        return Step(Act.AGAIN, f"found {seen.id} by its name", found)
    if _may_still_appear(record, grace=grace, now=now):
        looking = replace(record, phase=Phase.UNKNOWN)
        return Step(Act.REST, f"looking for a {thing(record)} whose creation got no clear answer", looking)
    closed = replace(suspect(record, now), phase=Phase.STOPPED, name="", instance_id=None, intent_at=None)
    return Step(Act.AGAIN, f"the unclear creation left no {thing(record)} behind", closed)


def _watch(record: Record, seen: Instance | None, *, policy: Policy, now: float, free: bool) -> Step:
    if seen is None:
        return _missing(record, policy=policy, now=now)
    record = adopt(record, seen, runtime_seconds=policy.runtime_seconds, now=now)
    outdated = bool(policy.digest) and record.spec_digest not in ("", policy.digest)
    record = replace(record, listed=True, outdated=outdated)
    if seen.observed in (Observed.EXITED, Observed.BROKEN):
        return _failed(record, _how(record, seen), policy=policy, now=now)
    if _too_dear(record, policy):
        why = (
            f"it costs ${record.usd_per_hour:.2f}/h, more than `max_hourly_cost` ({policy.max_usd_per_hour})"
        )
        return _failed(record, why, policy=policy, now=now)
    if record.crashes >= policy.max_crashes:
        why = f"its container restarted {record.crashes} times: the model server crashes"
        return _failed(record, why, policy=policy, now=now)
    if outdated and free:
        return _replaced(record, "it was made from another configuration", now)
    if _outlived(record, now):
        return _replaced(
            record, f"its own switch is due; the rest of the run needs a new {thing(record)}", now
        )
    age = now - (record.created_at or now)
    if record.ready_at is None and age >= policy.startup_timeout_seconds:
        why = f"not ready {age:.0f} s after its creation ({record.phase}: {record.error or 'no answer'})"
        return _failed(record, why, policy=policy, now=now)
    why = (
        "made from another configuration; replaced as soon as nobody is answered by it"
        if outdated
        else "there"
    )
    return Step(Act.PROBE, why, record)


def _how(record: Record, seen: Instance) -> str:
    """How a machine that is no use any more has ended, in its own words."""
    return f"the {thing(record)} {'has exited' if seen.observed is Observed.EXITED else 'is broken'}: {seen.detail}"


def _too_dear(record: Record, policy: Policy) -> bool:
    """What is billed can differ from the catalog's price; disks are in it, hence the allowance."""
    cap, rate = policy.max_usd_per_hour, record.usd_per_hour
    return cap is not None and rate is not None and rate > cap * 1.05 + 0.02


def _outlived(record: Record, now: float) -> bool:
    """A run was prolonged beyond the deadline that its machine has inside and that nobody can move."""
    if record.switch_at is None or record.deadline is None:
        return False
    return now >= record.switch_at - RENEW_SECONDS and record.deadline - record.switch_at >= MIN_RUN_SECONDS


def _replaced(record: Record, why: str, now: float) -> Step:
    """No failure: the next create follows as soon as this machine is gone, so there are never two bills."""
    return _destroy(replace(record, next_try_at=now, error=""), why, now)


def _missing(record: Record, *, policy: Policy, now: float) -> Step:
    since = record.missing_since if record.missing_since is not None else now
    phase = Phase.UNHEALTHY if record.phase is Phase.READY else record.phase
    marked = replace(record, missing_since=since, phase=phase)
    recent = _may_still_appear(record, grace=policy.create_grace_seconds, now=now)
    if recent or now - since < min(MISSING_GRACE_SECONDS, policy.create_grace_seconds):
        return Step(Act.REST, f"the {thing(record)} is not listed; looking again", marked)
    why = vanished(record)
    attempts = record.attempts + 1
    again = policy.restart_vanished and attempts <= policy.max_restarts
    gone = replace(
        ended(record, Phase.STOPPED if again else Phase.FAILED, now),
        attempts=attempts,
        error=why,
        next_try_at=now + _backoff(attempts, policy) if again else None,
    )
    return Step(Act.AGAIN, why, gone)


def _failed(record: Record, why: str, *, policy: Policy, now: float) -> Step:
    attempts = record.attempts + 1
    retry = now + _backoff(attempts, policy) if attempts <= policy.max_restarts else None
    return _destroy(replace(record, attempts=attempts, next_try_at=retry, error=why), why, now)


def _backoff(attempts: int, policy: Policy) -> float:
    return float(min(policy.restart_backoff_seconds * 2 ** (attempts - 1), MAX_BACKOFF_SECONDS))


# --- ending -------------------------------------------------------------------------------------------------------
def _destroy(record: Record, why: str, now: float) -> Step:
    targets = (record.instance_id,) if record.instance_id else ()
    return Step(Act.DESTROY, why, ending(record, now), targets)


def _terminating(record: Record, seen: Instance | None, *, policy: Policy, now: float) -> Step:
    if seen is not None:
        there = replace(record, instance_id=seen.id, listed=True, missing_since=None)
        return _destroy(there, "still listed after the delete", now)
    record = _unseen(record, now)
    if not _gone(record, grace=policy.create_grace_seconds, now=now):
        return _destroy(record, "its delete was not confirmed yet", now)
    gave_up = record.next_try_at is None and record.attempts > policy.max_restarts
    phase = Phase.FAILED if gave_up else Phase.STOPPED
    return Step(Act.AGAIN, "gone", ended(record, phase, now))


def _down(record: Record, want: Want, seen: Instance | None, *, grace: float, now: float) -> Step:
    why = f"{want.reason or 'ordered'} (by {want.by})"
    record = replace(record, down_reason=why, error="")  # what it was busy with is no longer why it is down
    if seen is not None:
        return _destroy(replace(record, instance_id=seen.id, listed=True, missing_since=None), why, now)
    if record.phase is Phase.STOPPED:
        return Step(Act.REST, f"down: {why}", record)
    if record.phase is Phase.FAILED:
        return Step(Act.REST, f"down: {why}", ended(record, Phase.STOPPED, now))
    if record.phase in (Phase.INTENT, Phase.UNKNOWN):
        if _may_still_appear(record, grace=grace, now=now):
            looking = replace(record, phase=Phase.UNKNOWN)
            return Step(
                Act.REST, f"making sure that an unclear creation left no {thing(record)} behind", looking
            )
        return Step(Act.REST, f"down: {why}", ended(record, Phase.STOPPED, now))
    record = _unseen(record, now)
    if not _gone(record, grace=grace, now=now):
        return _destroy(record, why, now)
    return Step(Act.REST, f"down: {why}", ended(record, Phase.STOPPED, now))


def _unseen(record: Record, now: float) -> Record:
    return record if record.missing_since is not None else replace(record, missing_since=now)


def _gone(record: Record, *, grace: float, now: float) -> bool:
    """Absent from list and look-up is proof after an accepted delete. Else it must stay away for a while, since one
    look can be wrong as a whole, and have been listed before or be too old for lag to explain it.
    """
    if record.delete_accepted:
        return True
    away = now - record.missing_since if record.missing_since is not None else 0.0
    visible = record.listed or not _may_still_appear(record, grace=grace, now=now)
    return visible and away >= min(MISSING_GRACE_SECONDS, grace)


def _may_still_appear(record: Record, *, grace: float, now: float) -> bool:
    return record.intent_at is not None and now < record.intent_at + grace
