"""Not a pass: the look at everything in the account that bears our mark, whatever our own memory says of it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from llmpod.backends import SomeAway
from llmpod.errors import ProviderError, StateError
from llmpod.lifecycle import match
from llmpod.lifecycle.act import Actor, Managed
from llmpod.lifecycle.book import Entry
from llmpod.lifecycle.exposure import unexplained
from llmpod.lifecycle.money import rate
from llmpod.lifecycle.nouns import thing_of
from llmpod.lifecycle.spending import day_of
from llmpod.lifecycle.state import State
from llmpod.lifecycle.want import expired
from llmpod.model import Direction, Event, EventKind, Instance, Listing, Phase, Record, Want

ACCOUNT_SECONDS = 3600.0
CONFIRM_SECONDS = 240.0
SKEW_SECONDS = 60.0  # two clocks, of which one counts whole seconds
_STRAY = "stray, not yet confirmed"


class Audit:
    """Finds the machines that are ours, and takes in or ends those that no record knows.

    Args:
        actor: the effects.
        models: what is managed, by model name.
    """

    def __init__(self, actor: Actor, models: Mapping[str, Managed]) -> None:
        self._actor = actor
        self._memory = actor.memory
        self._models = models

    def ours(self) -> list[Instance]:
        """List once, take over the provider's time, and tell our machines from foreign ones, which are only counted.

        Raises:
            SomeAway: with those of ours that are in reach.
            ProviderError: nothing is known; nothing may be concluded.
        """
        memory = self._memory
        bought = self._bought()
        expect = {r.instance_id for r in map(memory.record, self._models) if r.instance_id}
        expect |= {entry.pod for entry in bought if entry.is_open}
        known = expect | {entry.pod for entry in bought}
        try:
            listing = self._actor.backend.list(expect)
        except SomeAway as e:
            found = self._told_apart(e.listing, known)
            shown = replace(e.listing, instances=tuple(found))
            raise SomeAway(e.message, shown, e.models, causes=e.causes) from e
        except ProviderError as e:
            memory.set_clock(e.at)
            raise
        found = self._told_apart(listing, known)
        self._actor.report.remaining = len(found)
        return found

    def _told_apart(self, listing: Listing, known: set[str]) -> list[Instance]:
        """Ours among the listed ones; ``known``: ids that ever were."""
        memory, report = self._memory, self._actor.report
        memory.set_clock(listing.at)
        names = {
            name for r in map(memory.record, self._models) for name in (r.name, *dict(r.suspects)) if name
        }
        marks = self._marks()
        # An id that was ever ours stays ours, whatever a person has renamed it to and whoever said that it was gone.
        ours = [i for i in listing.instances if i.id in known or i.name in names or match.made_by(marks, i)]
        report.foreign = tuple(i for i in listing.instances if i not in ours)
        memory.state = replace(memory.state, foreign={i.id: _in_words(i) for i in report.foreign})
        return ours

    def _marks(self) -> set[str]:
        """Every install id under which this installation has made machines, its secret lost or not."""
        memory = self._memory
        known = memory.state.marks
        try:
            now = self._actor.store.install_id
        except StateError as e:
            memory.report.fail(e)
            return known
        lost = known - {now}
        memory.state = replace(memory.state, install_id=now, old_ids=tuple(sorted(lost)))
        return known | {now}

    def _bought(self) -> Sequence[Entry]:
        """Machines that the ledger has: ours even when the state is lost and their name changed."""
        purse = self._actor.purse
        with suppress(StateError):
            purse.recall()
        return purse.entries

    def look_at_account(self, listed: Sequence[Instance], spend: Callable[[], float | None]) -> None:
        """Now and then, compare what the account spends with what its listed machines explain.

        RunPod's figure may lag behind a machine's start or end: only a quiet pass asks, and only what a second look
        a while later confirms is told.

        Args:
            listed: machines of ours.
            spend: asks for the account's own USD per hour; None: not known, which is no alarm.
        """
        memory, now = self._memory, self._memory.now()
        records = [memory.record(model) for model in self._models]
        quiet = {r.instance_id for r in records if r.instance_id} == {i.id for i in listed}
        asked, first = memory.state.account_at, memory.state.told.get(_STRAY)
        due = asked is None or not 0 <= now - asked < (ACCOUNT_SECONDS if first is None else CONFIRM_SECONDS)
        if not quiet or not due or any(r.phase is Phase.TERMINATING for r in records):
            return
        everything = (*listed, *self._actor.report.foreign)
        found = unexplained(everything, [i.id for i in everything], spend())
        told = {key: at for key, at in memory.state.told.items() if key != _STRAY}
        if found.alarms and first is None:
            told[_STRAY] = now
        memory.state = replace(memory.state, account_at=now, told=told)
        for text in found.alarms if first is not None else ():
            memory.alarm(f"stray {day_of(now)[0]:.0f}", Event(EventKind.LEAK, "", text, now))

    def clear_orphans(self, instances: Sequence[Instance], orders: Mapping[str, Want]) -> bool:
        """Adopt or destroy every machine of ours that no record knows; whether one had to be destroyed.

        We hold the lock and every name is on disk before its create call, so none of them can be a start that is
        still under way: there is no age to wait for.
        """
        known, destroyed = [self._memory.record(model) for model in self._models], False
        for orphan in match.orphans(known, instances):
            model = match.owner(orphan.name, self._models)
            if model is not None and model in orders and self._adoptable(model, orphan, orders[model]):
                run = self._run_of(model, orphan, orders[model])
                self._actor.adopt(model, orphan, self._models[model], run=run)
                continue
            made = self._models.get(model or "")
            called = thing_of(made.config.get("backend")) if made else "machine"
            text = f"{called} {orphan.id} ({orphan.name}) was unknown to this installation; terminating it"
            event = Event(EventKind.LEAK, model or "", text, self._memory.now())
            self._memory.alarm(f"orphan {orphan.id}", event)
            self.destroy(orphan)
            destroyed = True
        return destroyed

    def destroy(self, orphan: Instance) -> None:
        """End a machine of ours without a record."""
        actor = self._actor
        actor.report.say(f"terminating {orphan.id} ({orphan.name}): no record knows it")
        try:
            actor.backend.destroy(orphan.id)
        except ProviderError as e:
            actor.report.fail(e)
        actor.point("orphan destroyed")

    def rebuild(self, instances: Sequence[Instance], orders: Mapping[str, Want]) -> None:
        """A new state from the provider's list; nothing is created for a while, for a list can lag."""
        actor, memory = self._actor, self._memory
        kept = actor.store.set_aside(memory.now())
        before = memory.state
        memory.state = State(
            last_pass=memory.now(),
            clock_offset=before.clock_offset,
            install_id=before.install_id,
            old_ids=before.old_ids,
        )
        self.clear_orphans(instances, orders)
        for model in self._models:
            if memory.record(model).phase is Phase.STOPPED:
                hold = memory.now() + self._models[model].policy.create_grace_seconds
                record = Record(run_at=orders[model].at, hold_until=hold, error="state was rebuilt")
                memory.keep_if_possible(model, record)
        actor.report.say(f"state rebuilt from the provider's list; the old file is kept as {kept}")

    def _adoptable(self, model: str, orphan: Instance, want: Want) -> bool:
        record, now = self._memory.record(model), self._memory.now()
        current = match.made_by((self._memory.state.install_id,), orphan)  # else its key is lost
        idle = record.phase is Phase.STOPPED and record.attempts == 0
        wanted = self._models[model].policy.digest
        outdated = bool(wanted) and orphan.digest not in ("", wanted)  # it would only be replaced, at once
        up = want.direction is Direction.UP and not expired(record, want, now)
        return idle and up and current and not outdated

    def _run_of(self, model: str, orphan: Instance, want: Want) -> Record:
        """The run of a machine, as far as it shows: its own deadline binds, or that of an order that was given later.

        What is past then ends the run, as it would have; else each lost state would begin another one.
        """
        made, now = orphan.created_at, self._memory.now()
        if made is None or want.at - made < SKEW_SECONDS:
            return Record(run_at=want.at)
        end = min(want.at, now) + self._models[model].policy.runtime_seconds
        return Record(run_at=want.at, deadline=end)


def _in_words(foreign: Instance) -> str:
    """What an id alone does not tell of a machine; that it is free, or called as its id is, goes without saying."""
    name = "" if foreign.name == foreign.id else foreign.name
    price = "" if foreign.usd_per_hour == 0 else rate(foreign.usd_per_hour)
    return ", ".join(filter(None, (name, price)))
