"""Not a loop: one short pass that makes what exists agree with what is wanted, and can be killed anywhere.

Lock, look, decide, act, save. Nothing here waits for a server to become ready; a later pass sees to that.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from llmpod.backends import Backend
from llmpod.errors import (
    BadCredentials,
    BadSpec,
    CreateUnknown,
    NoCapacity,
    NoMoney,
    ProviderError,
    ProviderUnavailable,
    RetiredApi,
    StateError,
)
from llmpod.lifecycle import decide, match
from llmpod.lifecycle.decide import Act, Policy, Step
from llmpod.lifecycle.probe import Prober
from llmpod.lifecycle.store import State, Store
from llmpod.lifecycle.want import expired, first_order, lapsed
from llmpod.model import Direction, Instance, Phase, Record, Spec, Want

MAX_STEPS = 6
NO_CAPACITY_SECONDS = 60.0
ACCOUNT_SECONDS = 300.0
REBUILT_HOLD_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Managed:
    """One model under management: what to create for it and which limits bind it."""

    spec: Spec
    policy: Policy
    config: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """What a pass did, in words, and the first error that decides the exit code."""

    lines: list[str] = field(default_factory=list)
    error: ProviderError | StateError | None = None

    def say(self, line: str) -> None:
        self.lines.append(line)

    def fail(self, error: ProviderError | StateError) -> None:
        self.say(str(error))
        self.error = self.error or error


class Reconciler:
    """Runs passes for one installation. The caller holds the store's lock.

    Args:
        store: the files.
        backend: the provider.
        models: what is managed, by model name.
        prober: asks model servers.
        clock: epoch seconds.
        point: called with a name at every effect; tests crash here.
        before_create: called before the first create of a pass (the proxy must be bound before money is spent).
    """

    def __init__(
        self,
        store: Store,
        backend: Backend,
        models: Mapping[str, Managed],
        *,
        prober: Prober,
        clock: Callable[[], float],
        point: Callable[[str], None] = lambda _: None,
        before_create: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._backend = backend
        self._models = models
        self._prober = prober
        self._clock = clock
        self._point = point
        self._before_create = before_create
        self._state = State()
        self.report = Report()

    def run(self) -> Report:
        """One pass.

        Raises:
            StateError: orders or state cannot be read or written; nothing was created.
            PortTaken: the proxy cannot listen; nothing was created.
        """
        self.report = Report()
        orders = self._orders()
        try:
            self._state = self._store.load()
        except StateError as e:
            self._rebuild(e, orders)
            return self.report
        try:
            instances = self._ours()
        except ProviderError as e:
            self.report.fail(e)
            self._end_blindly(orders)
        else:
            self._clear_orphans(instances, orders)
            for model in self._models:
                self._advance(model, orders[model], match.find(self._state.record(model), instances))
        self._save(replace(self._state, last_pass=self._clock()))
        return self.report

    # --- looking --------------------------------------------------------------------------------------------
    def _orders(self) -> dict[str, Want]:
        """The order in force for each model; a first order and an expiry are written down before they bind."""
        orders, now = self._store.orders(), self._clock()
        fresh = {model: first_order(now) for model in self._models if model not in orders}
        if fresh:
            self._store.order(fresh)
            self._point("orders written")
        return {model: lapsed(want, now) for model, want in (orders | fresh).items()}

    def _ours(self) -> list[Instance]:
        records = [self._state.record(model) for model in self._models]
        expect = {record.instance_id for record in records if record.instance_id}
        prefix = match.prefix(self._store.install_id)
        return [i for i in self._backend.list(expect) if i.name.startswith(prefix)]

    # --- one model --------------------------------------------------------------------------------------------
    def _advance(self, model: str, want: Want, seen: Instance | None) -> None:
        for _ in range(MAX_STEPS):
            record, now = self._state.record(model), self._clock()
            if order := expired(record, want, now):
                self._store.order({model: order})
                self._point("expiry written")
                want = order
            step = decide.decide(record, want, seen, policy=self._models[model].policy, now=now)
            self._keep(model, step.record)
            if step.act is not Act.AGAIN:
                break
            self.report.say(f"{model}: {step.why}")
        self._act(model, step, seen)

    def _act(self, model: str, step: Step, seen: Instance | None) -> None:
        self.report.say(f"{model}: {step.why}")
        if step.act is Act.CREATE:
            self._create(model)
        elif step.act is Act.DESTROY:
            self._destroy(model, step.targets)
        elif step.act is Act.PROBE and seen is not None:
            self._probe(model, seen)

    def _probe(self, model: str, seen: Instance) -> None:
        record, managed = self._state.record(model), self._models[model]
        health = self._prober.check(
            seen,
            self._store.pod_key(record.name),
            managed.spec.served_name,
            was_ready=record.ready_at is not None,
        )
        step = decide.after_probe(record, health, policy=managed.policy, now=self._clock())
        self._keep(model, step.record)
        self.report.say(f"{model}: {step.why}")
        if step.act is Act.DESTROY:
            self._destroy(model, step.targets)

    def _create(self, model: str) -> None:
        """Intent first, on disk; then one call for each candidate until one is taken or the answer is unclear."""
        self._before_create()
        managed, name = (
            self._models[model],
            match.new_name(self._store.install_id, model, secrets.token_hex(6)),
        )
        intent = decide.begin(self._state.record(model), name, policy=managed.policy, now=self._clock())
        spec = managed.spec
        intent = replace(
            intent,
            model=spec.model,
            served_name=spec.served_name,
            spec_digest=spec.digest,
            config=managed.config,
        )
        self._keep(model, intent)
        self._point("intent saved")
        refusal = ProviderUnavailable("There is no GPU type to try.")
        for offer in spec.offers:
            try:
                made = self._backend.create(spec, offer, name, {"VLLM_API_KEY": self._store.pod_key(name)})
            except NoCapacity as e:
                self.report.say(f"{model}: {offer.gpu}: {e.message}")
                refusal = e
                continue
            except ProviderError as e:
                self._not_made(model, e)
                return
            self._point("created")
            self._made(model, made)
            return
        self.report.fail(refusal)
        again = self._clock() + NO_CAPACITY_SECONDS
        self._keep(model, decide.not_created(intent, str(refusal), retry_at=again))

    def _made(self, model: str, made: Instance) -> None:
        record = decide.adopt(
            self._state.record(model), made, policy=self._models[model].policy, now=self._clock()
        )
        self._keep(model, record)
        self._point("id saved")
        price = f" at ${record.usd_per_hour:.2f}/h" if record.usd_per_hour is not None else ""
        self.report.say(f"{model}: created {made.id} ({record.gpu}{price})")

    def _not_made(self, model: str, error: ProviderError) -> None:
        """The create call failed: unclear, or clearly without effect; the error's class says which."""
        record, now = self._state.record(model), self._clock()
        self.report.fail(error)
        if isinstance(error, CreateUnknown):
            self._keep(model, replace(record, phase=Phase.UNKNOWN, error=str(error)))
        elif isinstance(error, BadSpec):
            self._keep(model, decide.not_created(record, str(error), retry_at=None))
        elif isinstance(error, BadCredentials | NoMoney | RetiredApi):
            self._keep(model, decide.not_created(record, str(error), retry_at=now + ACCOUNT_SECONDS))
        else:
            wait = error.retry_after or NO_CAPACITY_SECONDS
            self._keep(model, decide.not_created(record, str(error), retry_at=now + wait))

    def _destroy(self, model: str, targets: tuple[str, ...]) -> None:
        for target in targets:
            self._point("before destroy")
            try:
                accepted = self._backend.destroy(target)
            except ProviderError as e:
                self.report.fail(e)
                continue
            self._point("destroyed")
            if accepted:
                self._keep(model, replace(self._state.record(model), delete_accepted=True))
            self.report.say(
                f"{model}: terminating {target}" if accepted else f"{model}: {target} is unknown there"
            )

    # --- what belongs to nobody -----------------------------------------------------------------------------------
    def _clear_orphans(self, instances: list[Instance], orders: Mapping[str, Want]) -> None:
        """Adopt or destroy every machine that bears our install id and that no record knows."""
        known = [self._state.record(model) for model in self._models]
        for orphan in match.orphans(known, instances):
            model = match.owner(orphan, self._store.install_id, self._models)
            if model is not None and self._adoptable(model, orders[model]):
                self._adopt(model, orphan, orders[model])
                continue
            self.report.say(f"terminating {orphan.id} ({orphan.name}): no record knows it")
            try:
                self._backend.destroy(orphan.id)
            except ProviderError as e:
                self.report.fail(e)
            self._point("orphan destroyed")

    def _adoptable(self, model: str, want: Want) -> bool:
        record = self._state.record(model)
        idle = record.phase is Phase.STOPPED and record.attempts == 0
        return idle and want.direction is Direction.UP and not expired(record, want, self._clock())

    def _adopt(self, model: str, orphan: Instance, want: Want) -> None:
        managed = self._models[model]
        blank = Record(
            run_at=want.at,
            model=managed.spec.model,
            served_name=managed.spec.served_name,
            config=managed.config,
        )
        self._keep(model, decide.adopt(blank, orphan, policy=managed.policy, now=self._clock()))
        self.report.say(f"{model}: adopted {orphan.id} ({orphan.name})")

    # --- when things are not as they should be ----------------------------------------------------------------------
    def _end_blindly(self, orders: Mapping[str, Want]) -> None:
        """The listing failed: a deadline or a "down" is still carried out on the id that we know."""
        for model in self._models:
            record, now = self._state.record(model), self._clock()
            want = orders[model]
            if order := expired(record, want, now):
                self._store.order({model: order})
                want = order
            if want.direction is Direction.DOWN and record.instance_id and not record.delete_accepted:
                self._keep(model, replace(record, phase=Phase.TERMINATING, down_reason=want.reason))
                self._destroy(model, (record.instance_id,))

    def _rebuild(self, error: StateError, orders: Mapping[str, Want]) -> None:
        """The state file is unreadable: adopt or end what the provider shows of ours; create nothing for a while."""
        self.report.fail(error)
        if "newer" in error.message and all(w.direction is Direction.UP for w in orders.values()):
            return
        hold = self._clock() + REBUILT_HOLD_SECONDS
        self._state = State()
        instances = self._ours()
        self._clear_orphans(instances, orders)
        for model in self._models:
            if self._state.record(model).phase is Phase.STOPPED:
                self._state = self._state.with_record(
                    model, Record(run_at=orders[model].at, next_try_at=hold, error=error.message)
                )
        kept = self._store.set_aside(self._clock())
        self._save(self._state)
        self.report.say(f"state rebuilt from the provider's list; the old file is kept as {kept}")

    def _keep(self, model: str, record: Record) -> None:
        if record != self._state.record(model):
            self._save(self._state.with_record(model, record))

    def _save(self, state: State) -> None:
        self._store.save(state)
        self._state = state
        self._point("saved")
