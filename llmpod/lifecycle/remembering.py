"""Not a step of a pass: what its end leaves in the state for who looks later."""

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import replace

from llmpod.backends import SomeAway
from llmpod.errors import NoMoney, Refused, StateError
from llmpod.lifecycle.act import Actor
from llmpod.lifecycle.spending import day_of
from llmpod.lifecycle.state import Trouble
from llmpod.model import Event, EventKind, Phase, Today


def trouble(actor: Actor) -> None:
    """Why the pass failed, if it did; and told, once a day, where only a person can mend it."""
    memory, error = actor.memory, actor.report.error
    if error is None:
        memory.state = replace(memory.state, trouble=None)
        return
    now, before = memory.now(), memory.state.trouble
    since = before.since if before and before.code == error.code else now
    memory.state = replace(memory.state, trouble=Trouble(error.code, str(error), since))
    for cause in error.causes if isinstance(error, SomeAway) else (error,):
        if isinstance(cause, NoMoney | Refused):
            event = Event(EventKind.FAILED, "", str(cause), now)
            memory.alarm(f"{cause.code} {day_of(now)[0]:.0f}", event)


def today(actor: Actor) -> None:
    """The day's money, for whoever asks the proxy for a model that costs some."""
    memory, purse = actor.memory, actor.purse
    limits = purse.allowed(memory.now()).limits
    days = [Today(round(limit.spent.usd, 4), limit.usd) for limit in limits if limit.kind == "per_day"]
    memory.state = replace(memory.state, today=days[0] if days else None)


def nothing_of(actor: Actor, removed: AbstractSet[str], *, reached: Collection[str]) -> None:
    """Models that are configured no more, once their machines are gone: neither record nor order is kept.

    Args:
        actor: the files.
        removed: these models.
        reached: those that a pass can end; of the others it is said that they may still run.
    """
    records = actor.memory.state.records
    gone = {name for name in removed if records[name].phase in (Phase.STOPPED, Phase.FAILED)}
    for name in sorted(removed - gone - set(reached)):
        actor.report.say(
            f"{name}: was removed from the configuration and may still run; nothing here can end it"
        )
    if not gone:
        return
    try:
        actor.store.forget_orders(gone)
    except StateError as e:
        actor.report.fail(e)
        return
    actor.memory.forget(gone)
    actor.report.say(f"forgotten, for they are configured no more: {', '.join(sorted(gone))}")
