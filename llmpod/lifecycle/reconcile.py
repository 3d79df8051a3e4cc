"""Not a loop: one short pass that makes what exists agree with what is wanted, and can be killed anywhere.

Lock, look, decide, act, save. Nothing here waits for a server to become ready; a later pass sees to that.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import filterfalse
from typing import Protocol

from llmpod.backends import SomeAway
from llmpod.errors import LlmpodError, NewerState, ProviderError, StateError
from llmpod.lifecycle import decide, match, place, remembering, telling
from llmpod.lifecycle.act import Actor, Managed
from llmpod.lifecycle.audit import Audit
from llmpod.lifecycle.blind import Blind
from llmpod.lifecycle.decide import Act, Step
from llmpod.lifecycle.orders import PROXY, Orders
from llmpod.lifecycle.report import Report
from llmpod.lifecycle.state import ProxyRecord, SaveProxy, State
from llmpod.lifecycle.supervision import Notes
from llmpod.lifecycle.want import lapsed, overruled
from llmpod.model import Direction, Instance, Observed, Phase, Want

MAX_STEPS = 6


class Proxy(Protocol):
    """What a pass needs of the proxy's process."""

    @property
    def notes(self) -> Notes | None: ...

    def ensure(self, record: ProxyRecord | None, *, save: SaveProxy) -> str: ...

    def end(self, record: ProxyRecord | None) -> bool: ...


class Reconciler:
    """Runs one pass for one installation.

    Args:
        actor: the effects and the state.
        models: what is managed, by model name.
        proxy: the proxy's process, or None when somebody else runs it.
        forced: orders that bind this pass although they could not be written down.
        removed: what is configured no more and still has a machine; it ends when nobody is answered by it.
    """

    def __init__(
        self,
        actor: Actor,
        models: Mapping[str, Managed],
        proxy: Proxy | None = None,
        *,
        forced: Mapping[str, Want] | None = None,
        removed: Mapping[str, Managed] | None = None,
    ) -> None:
        self._actor = actor
        self._models = models
        self._removed = removed or {}
        self._known = {**self._removed, **models}
        self._proxy = proxy
        self._audit = Audit(actor, self._known)
        self._orders = Orders(actor, models, forced or {})
        self._blind = Blind(actor, models, self._orders, self._audit)
        self._may_create = True

    @property
    def unsaved(self) -> State | None:
        """The state at the end of the pass, when the disk refused it."""
        return self._actor.memory.unsaved

    def run(self) -> Report:
        """One pass; failures are in the report, and none of them keeps a deadline from being carried out."""
        report, actor = self._actor.report, self._actor
        try:
            actor.memory.load()
            self._blind.miss_no_state()
        except StateError as e:
            report.fail(e)
            orders = self._orders.read()
            self._end_proxy(orders)
            self._blind.without_state(orders, newer=isinstance(e, NewerState))
            return report
        orders = self._orders.read()
        self._tend_proxy(orders)
        try:
            instances = self._audit.ours()
        except SomeAway as e:
            report.fail(e)
            self._tend_all(e.listing.instances, orders, away=e.models)
        except ProviderError as e:
            report.fail(e)
            self._count_money(None)
            self._blind.end(orders, self._known)
        else:
            self._tend_all(instances, orders)
            self._audit.look_at_account(instances, actor.spend)
        self._raise_alarms()
        report.phases = {model: actor.memory.record(model).phase for model in self._models}
        remembering.trouble(actor)
        remembering.today(actor)
        try:
            actor.memory.save(replace(actor.memory.state, last_pass=actor.memory.now()))
        except StateError as e:
            report.fail(e)
        return report

    def _tend_all(
        self, instances: Sequence[Instance], orders: Mapping[str, Want], *, away: frozenset[str] = frozenset()
    ) -> None:
        """Every model by what is seen of it; those whose provider is ``away`` can only be ended."""
        memory = self._actor.memory
        self._count_money(instances, complete=not away)
        if self._audit.clear_orphans(instances, orders):
            self._may_create = False  # not two bills, not even for one pass
        for model in filterfalse(away.__contains__, self._models):
            self._tend(model, orders[model], match.find(memory.record(model), instances))
        self._blind.end(orders, away)
        for model in filterfalse(away.__contains__, self._removed):
            self._end_removed(model, orders.get(model), match.find(memory.record(model), instances))
        gone = memory.state.records.keys() - self._models.keys()
        remembering.nothing_of(self._actor, gone, reached=self._removed)

    def preview(self) -> list[tuple[str, Step, Instance | None]]:
        """The first step that a pass would take for each model; changes nothing and calls nothing that does.

        Raises:
            StateError, ProviderError: it cannot be known.
        """
        actor = self._actor
        actor.memory.load()
        orders, instances = actor.store.orders(), self._audit.ours()
        actor.purse.recall()
        now, steps = actor.memory.now(), []
        for model, managed in self._models.items():
            want = lapsed(orders.get(model) or self._orders.untold(model, now), now)
            record = actor.memory.record(model)
            seen = match.find(record, instances)
            want = overruled(want, record, actor.purse.allowed(now), now) or want
            step = decide.decide(record, want, seen, policy=managed.policy, now=now)
            while step.act is Act.AGAIN:
                step = decide.decide(step.record, want, seen, policy=managed.policy, now=now)
            steps.append((model, step, seen))
        return steps

    def _raise_alarms(self) -> None:
        memory, now = self._actor.memory, self._actor.memory.now()
        for model, managed in self._models.items():
            soon = managed.policy.expiring_soon_seconds
            for key, event in telling.alarms(model, memory.record(model), soon=soon, now=now):
                memory.alarm(key, event)
        for key, event in self._actor.purse.alarms(now):
            memory.alarm(key, event)

    # --- looking ------------------------------------------------------------------------------------------------
    def _count_money(self, instances: Sequence[Instance] | None, *, complete: bool = True) -> None:
        """Write down what runs at what price; None: go by what was written before."""
        actor, memory = self._actor, self._actor.memory
        try:
            if instances is None:
                actor.purse.recall()
            else:
                actor.purse.sync(instances, memory.state.records, now=memory.now(), complete=complete)
        except StateError as e:  # it stops new spending, not the watch over what runs
            actor.report.fail(e)
            self._may_create = False

    # --- acting -------------------------------------------------------------------------------------------------
    def _tend_proxy(self, orders: Mapping[str, Want]) -> None:
        """Before any money is spent: the address must be ours. A proxy that fails never stops a termination."""
        actor = self._actor
        if self._proxy is None:
            return
        record = actor.memory.state.proxy
        if self._end_proxy(orders, record):
            if record:
                with suppress(StateError):  # a dead process in the file is recognised as dead
                    actor.memory.save(replace(actor.memory.state, proxy=None))
            return
        for key, event in telling.given_up(self._proxy.notes):
            actor.memory.alarm(key, event)
        try:
            done = self._proxy.ensure(
                record, save=lambda r: actor.memory.save(replace(actor.memory.state, proxy=r))
            )
        except LlmpodError as e:
            actor.report.fail(e)
            self._may_create = False
            return
        if done:
            actor.report.say(done)

    def _end_proxy(self, orders: Mapping[str, Want], record: ProxyRecord | None = None) -> bool:
        """Where that is ordered; whether it is."""
        if self._proxy is None or orders[PROXY].direction is Direction.UP:
            return False
        if self._proxy.end(record):
            self._actor.report.say("proxy stopped")
        return True

    def _tend(self, model: str, want: Want, seen: Instance | None) -> None:
        """One model's trouble with our own files is not another one's."""
        try:
            self._advance(model, want, seen)
        except StateError as e:
            self._actor.report.fail(e)

    def _end_removed(self, model: str, order: Want | None, seen: Instance | None) -> None:
        """A model that is configured no more: what it answers is finished, and then it is ended."""
        well = seen is not None and seen.observed not in (Observed.EXITED, Observed.BROKEN)
        end = self._orders.end_of(model, order, alive=well)
        if end is not None:
            self._tend(model, end, seen)
        else:
            self._actor.report.say(f"{model}: removed from the configuration; it ends when it has answered")

    def _advance(self, model: str, want: Want, seen: Instance | None) -> None:
        """Decide and save until an effect is due, then have it; at most one effect a pass."""
        actor, policy = self._actor, self._known[model].policy
        for _ in range(MAX_STEPS):
            want, before = self._orders.in_force(model, want), actor.memory.record(model)
            free, now = self._orders.free(model), actor.memory.now()
            step = decide.decide(before, want, seen, policy=policy, now=now, free=free)
            if before.ending_at is None and step.record.ending_at is not None and step.record.attempts:
                actor.keep_last_words(model, step.record)
            if not self._keep(model, step):
                return
            actor.report.say(f"{model}: {step.why}")
            if step.act is not Act.AGAIN:
                self._perform(model, step, seen)
                return

    def _keep(self, model: str, step: Step) -> bool:
        """Write the step down; whether to go on. Only a create is impossible without memory."""
        if step.act is not Act.CREATE:
            self._actor.memory.keep_if_possible(model, step.record)
            return True
        try:
            self._actor.memory.keep(model, step.record)
        except StateError as e:
            self._actor.report.fail(e)
            return False
        return True

    def _perform(self, model: str, step: Step, seen: Instance | None) -> None:
        if step.act is Act.DESTROY:
            self._actor.destroy(model, step.targets)
        elif step.act is Act.PROBE and seen is not None:
            self._actor.probe(model, seen, self._models[model], answering=self._orders.answers(model))
        elif step.act is Act.CREATE and self._may_create and self._orders.intact and self._has_place(model):
            self._create(model)

    def _has_place(self, model: str) -> bool:
        """Whether nobody else has what it needs; soon looked at again where that one is about to end."""
        memory = self._actor.memory
        if not (other := place.taken_by(model, self._known, memory.state.records)):
            return True
        why = f"waits until {other} has ended"
        self._actor.report.say(f"{model}: {why}")
        ends = other in self._removed or memory.record(other).phase is Phase.TERMINATING
        soon = memory.now() + place.LOOK_SECONDS if ends else None
        memory.keep_if_possible(model, replace(memory.record(model), next_try_at=soon, error=why))
        return False

    def _create(self, model: str) -> None:
        try:
            self._actor.create(model, self._models[model])
        except StateError as e:
            self._actor.report.fail(e)
