"""Not a loop: one short pass that makes what exists agree with what is wanted, and can be killed anywhere.

Lock, look, decide, act, save. Nothing here waits for a server to become ready; a later pass sees to that.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from llmpod.errors import LlmpodError, NewerState, ProviderError, StateError
from llmpod.lifecycle import decide, match
from llmpod.lifecycle.act import Actor, Managed, Report
from llmpod.lifecycle.decide import Act, Step
from llmpod.lifecycle.store import ProxyRecord, SaveProxy, State
from llmpod.lifecycle.want import expired, first_order, lapsed
from llmpod.model import Direction, Instance, Phase, Record, Want

MAX_STEPS = 6
REBUILT_HOLD_SECONDS = 600.0
PROXY = "@proxy"  # the name under which the proxy's own order stands


class Proxy(Protocol):
    """What a pass needs of the proxy's process."""

    def ensure(self, record: ProxyRecord | None, *, save: SaveProxy) -> str: ...

    def end(self, record: ProxyRecord | None) -> bool: ...


class Reconciler:
    """Runs one pass for one installation.

    Args:
        actor: the effects and the state.
        models: what is managed, by model name.
        proxy: the proxy's process, or None when somebody else runs it.
        forced: orders that bind this pass although they could not be written down.
    """

    def __init__(
        self,
        actor: Actor,
        models: Mapping[str, Managed],
        proxy: Proxy | None = None,
        *,
        forced: Mapping[str, Want] | None = None,
    ) -> None:
        self._actor = actor
        self._models = models
        self._proxy = proxy
        self._forced = forced or {}
        self._may_create = True

    def run(self) -> Report:
        """One pass; failures are in the report, and none of them keeps a deadline from being carried out."""
        report, actor = self._actor.report, self._actor
        try:
            actor.state = actor.store.load()
        except StateError as e:
            report.fail(e)
            self._without_state(newer=isinstance(e, NewerState))
            return report
        orders = self._orders()
        self._tend_proxy(orders)
        try:
            instances = self._ours()
        except ProviderError as e:
            report.fail(e)
            self._end_blindly(orders)
        else:
            self._clear_orphans(instances, orders)
            for model in self._models:
                self._advance(model, orders[model], match.find(actor.state.record(model), instances))
        report.phases = {model: actor.state.record(model).phase for model in self._models}
        try:
            actor.save(replace(actor.state, last_pass=actor.clock()))
        except StateError as e:
            report.fail(e)
        return report

    def preview(self) -> list[tuple[str, Step, Instance | None]]:
        """The first step that a pass would take for each model; changes nothing and calls nothing that does.

        Raises:
            StateError, ProviderError: it cannot be known.
        """
        actor, now = self._actor, self._actor.clock()
        actor.state = actor.store.load()
        orders, instances = actor.store.orders(), self._ours()
        steps = []
        for model, managed in self._models.items():
            want = lapsed(orders.get(model) or first_order(now), now)
            record = actor.state.record(model)
            seen = match.find(record, instances)
            want = expired(record, want, now) or want
            step = decide.decide(record, want, seen, policy=managed.policy, now=now)
            while step.act is Act.AGAIN:
                step = decide.decide(step.record, want, seen, policy=managed.policy, now=now)
            steps.append((model, step, seen))
        return steps

    # --- looking ------------------------------------------------------------------------------------------------
    def _orders(self) -> dict[str, Want]:
        """The order in force for each model and the proxy; a first order is written down before it binds."""
        now, actor = self._actor.clock(), self._actor
        names = (*self._models, PROXY)
        try:
            orders = actor.store.orders()
            if fresh := {model: first_order(now) for model in names if model not in orders}:
                actor.store.order_instead({}, fresh)
                actor.point("orders written")
                orders = actor.store.orders()
        except StateError as e:
            actor.report.fail(e)
            self._may_create = False
            orders = {model: self._as_before(model) for model in names}
        return {model: lapsed(want, now) for model, want in {**orders, **self._forced}.items()}

    def _as_before(self, model: str) -> Want:
        """The order to act on when orders cannot be read: go on with what runs, until its deadline."""
        run_at = self._actor.state.record(model).run_at
        return Want(Direction.UP, at=run_at or 0.0, by="the run before", reason="orders are unreadable")

    def _ours(self) -> list[Instance]:
        actor = self._actor
        records = [actor.state.record(model) for model in self._models]
        expect = {record.instance_id for record in records if record.instance_id}
        prefix = match.prefix(actor.store.install_id)
        # A recorded id stays ours whatever a person has renamed it to in the console.
        listed = actor.backend.list(expect).instances
        ours = [i for i in listed if i.id in expect or i.name.startswith(prefix)]
        actor.report.remaining = len(ours)
        return ours

    # --- acting -------------------------------------------------------------------------------------------------
    def _tend_proxy(self, orders: Mapping[str, Want]) -> None:
        """Before any money is spent: the address must be ours. A proxy that fails never stops a termination."""
        actor = self._actor
        if self._proxy is None:
            return
        record = actor.state.proxy
        if orders[PROXY].direction is Direction.DOWN:
            if self._proxy.end(record):
                actor.report.say("proxy stopped")
            if record:
                with suppress(StateError):  # a dead process in the file is recognised as dead
                    actor.save(replace(actor.state, proxy=None))
            return
        try:
            done = self._proxy.ensure(record, save=lambda r: actor.save(replace(actor.state, proxy=r)))
        except LlmpodError as e:
            actor.report.fail(e)
            self._may_create = False
            return
        if done:
            actor.report.say(done)

    def _advance(self, model: str, want: Want, seen: Instance | None) -> None:
        """Decide and save until an effect is due, then have it; at most one effect a pass."""
        actor, managed = self._actor, self._models[model]
        for _ in range(MAX_STEPS):
            want = self._in_force(model, want)
            step = decide.decide(
                actor.state.record(model), want, seen, policy=managed.policy, now=actor.clock()
            )
            if not self._keep(model, step):
                return
            actor.report.say(f"{model}: {step.why}")
            if step.act is not Act.AGAIN:
                self._perform(model, step, seen)
                return

    def _keep(self, model: str, step: Step) -> bool:
        """Write the step down; whether to go on. Only a create is impossible without memory."""
        if step.act is not Act.CREATE:
            self._actor.keep_if_possible(model, step.record)
            return True
        try:
            self._actor.keep(model, step.record)
        except StateError as e:
            self._actor.report.fail(e)
            return False
        return True

    def _perform(self, model: str, step: Step, seen: Instance | None) -> None:
        if step.act is Act.DESTROY:
            self._actor.destroy(model, step.targets)
        elif step.act is Act.PROBE and seen is not None:
            self._actor.probe(model, seen, self._models[model])
        elif step.act is Act.CREATE and self._may_create:
            self._create(model)

    def _create(self, model: str) -> None:
        try:
            self._actor.create(model, self._models[model])
        except StateError as e:
            self._actor.report.fail(e)

    def _in_force(self, model: str, want: Want) -> Want:
        """The order, or the sticky "down" that its passed deadline has become."""
        order = expired(self._actor.state.record(model), want, self._actor.clock())
        if order is None:
            return want
        try:
            self._actor.store.order_instead({model: want}, {model: order})
        except StateError as e:
            self._actor.report.fail(e)
        self._actor.point("expiry written")
        return order

    def _clear_orphans(self, instances: list[Instance], orders: Mapping[str, Want]) -> None:
        """Adopt or destroy every machine that bears our install id and that no record knows."""
        actor = self._actor
        known = [actor.state.record(model) for model in self._models]
        for orphan in match.orphans(known, instances):
            model = match.owner(orphan, actor.store.install_id, self._models)
            if model is not None and self._adoptable(model, orphan, orders[model]):
                actor.adopt(model, orphan, self._models[model], run_at=orders[model].at)
            else:
                actor.destroy_orphan(orphan)

    def _adoptable(self, model: str, orphan: Instance, want: Want) -> bool:
        record, now = self._actor.state.record(model), self._actor.clock()
        idle = record.phase is Phase.STOPPED and record.attempts == 0
        age = now - (orphan.created_at or now)
        time_left = age + decide.MIN_RUN_SECONDS < self._models[model].policy.runtime_seconds
        return idle and want.direction is Direction.UP and time_left and not expired(record, want, now)

    # --- when things are not as they should be ------------------------------------------------------------------
    def _end_blindly(self, orders: Mapping[str, Want]) -> None:
        """The listing failed: a deadline or a "down" is still carried out on the id that we know."""
        actor = self._actor
        for model in self._models:
            want, record = self._in_force(model, orders[model]), actor.state.record(model)
            if want.direction is Direction.DOWN and record.instance_id and not record.delete_accepted:
                ending = replace(record, phase=Phase.TERMINATING, down_reason=want.reason)
                actor.keep_if_possible(model, ending)
                actor.destroy(model, (record.instance_id,))

    def _without_state(self, *, newer: bool) -> None:
        """The state is unreadable: adopt or end what the provider shows of ours, and create nothing for a while.

        A state file of a newer version is left alone; there a "down" still ends everything of ours.
        """
        actor = self._actor
        orders = self._orders()
        if self._proxy is not None and orders[PROXY].direction is Direction.DOWN and self._proxy.end(None):
            actor.report.say("proxy stopped")
        try:
            instances = self._ours()
        except ProviderError as e:
            actor.report.fail(e)
            return
        if newer:
            down = all(orders[model].direction is Direction.DOWN for model in self._models)
            for instance in instances if down else ():
                actor.destroy_orphan(instance)
            return
        kept = actor.store.set_aside(actor.clock())
        actor.save(State(last_pass=actor.clock()))
        self._clear_orphans(instances, orders)
        for model in self._models:
            if actor.state.record(model).phase is Phase.STOPPED:
                hold = actor.clock() + REBUILT_HOLD_SECONDS
                actor.keep(
                    model, Record(run_at=orders[model].at, next_try_at=hold, error="state was rebuilt")
                )
        actor.report.say(f"state rebuilt from the provider's list; the old file is kept as {kept}")
