"""Not a decision: carries out one step for one model, and writes down before and after what it does."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from llmpod.backends import Backend
from llmpod.errors import (
    BadCredentials,
    BadSpec,
    CreateUnknown,
    LlmpodError,
    NoCapacity,
    NoMoney,
    ProviderError,
    ProviderUnavailable,
    RetiredApi,
    StateError,
)
from llmpod.lifecycle import decide, match
from llmpod.lifecycle.decide import Act, Policy
from llmpod.lifecycle.store import State, Store
from llmpod.model import Health, Instance, Offer, Phase, Record, Spec

NO_CAPACITY_SECONDS = 60.0
ACCOUNT_SECONDS = 300.0


class Prober(Protocol):
    """Asks a model server how far it is; see :class:`llmpod.lifecycle.probe.HttpProber`."""

    def check(self, seen: Instance, api_key: str, served_name: str, *, was_ready: bool) -> Health: ...


@dataclass(frozen=True, slots=True)
class Managed:
    """One model under management: what to create for it and which limits bind it.

    Args:
        digest: names the configuration; a machine made from another one is replaced.
        model: the Hugging Face id.
        served_name: the name that clients send.
        policy: its limits.
        config: the configuration's snapshot, for the state file.
        draw: makes the specification when one is needed; may ask the hub and the catalog and raise LlmpodError.
    """

    digest: str
    model: str
    served_name: str
    policy: Policy
    draw: Callable[[], Spec]
    config: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """What a pass did, in words.

    ``error`` is the first failure, ``remaining`` how many machines of ours were listed (None: not known),
    ``ready`` the models that answered a probe in this very pass, ``phases`` where each model is at its end, also
    when that could not be written down.
    """

    lines: list[str] = field(default_factory=list)
    error: LlmpodError | None = None
    remaining: int | None = None
    ready: set[str] = field(default_factory=set)
    phases: dict[str, Phase] = field(default_factory=dict)

    def say(self, line: str) -> None:
        if line not in self.lines:
            self.lines.append(line)

    def fail(self, error: LlmpodError) -> None:
        self.say(str(error))
        self.error = self.error or error


class Actor:
    """The effects of one pass. The caller holds the store's lock.

    Args:
        store: the files.
        backend: the provider.
        prober: asks model servers.
        clock: epoch seconds.
        point: called with a name at every effect; tests crash here.
    """

    def __init__(
        self,
        store: Store,
        backend: Backend,
        prober: Prober,
        *,
        clock: Callable[[], float],
        point: Callable[[str], None],
    ) -> None:
        self.store = store
        self.backend = backend
        self.clock = clock
        self.point = point
        self.report = Report()
        self.state = State()
        self._prober = prober

    def save(self, state: State) -> None:
        """Durable before it returns."""
        self.store.save(state)
        self.state = state
        self.point("saved")

    def keep(self, model: str, record: Record) -> None:
        """Save a model's record when it changed."""
        if record != self.state.record(model):
            self.save(self.state.with_record(model, record))

    def keep_if_possible(self, model: str, record: Record) -> None:
        """The same before an effect that needs no memory: a full disk must not keep a machine alive."""
        try:
            self.keep(model, record)
        except StateError as e:
            self.report.fail(e)
            self.state = self.state.with_record(model, record)

    def create(self, model: str, managed: Managed) -> None:
        """Intent first, on disk; then one call for each candidate until one is taken or the answer is unclear."""
        try:
            spec = managed.draw()
        except LlmpodError as e:
            self._not_drawn(model, e)
            return
        name = match.new_name(self.store.install_id, model, secrets.token_hex(6))
        intent = decide.begin(self.state.record(model), name, policy=managed.policy, now=self.clock())
        self.keep(model, _described(intent, managed))
        self.point("intent saved")
        refusals: list[NoCapacity] = []
        for offer in spec.offers:
            try:
                made = self._create_one(spec, offer, name, deadline=intent.deadline or self.clock())
            except NoCapacity as e:
                self.report.say(f"{model}: no {offer.gpu} to be had: {e.message}")
                refusals.append(e)
                continue
            except ProviderError as e:
                self._not_made(model, e)
                return
            self._made(model, made, managed.policy)
            return
        self._not_made(model, refusals[-1] if refusals else NoCapacity("There is no GPU type to try."))

    def _not_drawn(self, model: str, error: LlmpodError) -> None:
        """Nobody knows yet what to create: wrong configuration stays so, a source out of reach comes back."""
        self.report.fail(error)
        passing = isinstance(error, ProviderUnavailable | NoCapacity)
        retry_at = self.clock() + (error.retry_after or NO_CAPACITY_SECONDS) if passing else None
        self.keep(model, decide.not_created(self.state.record(model), str(error), retry_at=retry_at))

    def _create_one(self, spec: Spec, offer: Offer, name: str, *, deadline: float) -> Instance:
        self.point("before create")
        secret = {"VLLM_API_KEY": self.store.pod_key(name)}
        made = self.backend.create(spec, offer, name, secret, deadline=deadline)
        self.point("created")
        return made

    def _made(self, model: str, made: Instance, policy: Policy) -> None:
        record = decide.adopt(self.state.record(model), made, policy=policy, now=self.clock())
        self.keep(model, record)
        price = f" at ${record.usd_per_hour:.2f}/h" if record.usd_per_hour is not None else ""
        self.report.say(f"{model}: created {made.id} ({record.gpu}{price})")

    def _not_made(self, model: str, error: ProviderError) -> None:
        """The create call failed: unclear, or clearly without effect; the error's class says which."""
        record, now = self.state.record(model), self.clock()
        self.report.fail(error)
        if isinstance(error, CreateUnknown):
            self.keep(model, replace(record, phase=Phase.UNKNOWN, error=str(error)))
            return
        retry_at: float | None = now + (error.retry_after or NO_CAPACITY_SECONDS)
        if isinstance(error, BadSpec):
            retry_at = None
        elif isinstance(error, BadCredentials | NoMoney | RetiredApi):
            retry_at = now + ACCOUNT_SECONDS
        self.keep(model, decide.not_created(record, str(error), retry_at=retry_at))

    def destroy(self, model: str, targets: tuple[str, ...]) -> None:
        """Order the end of a model's machines; whether they are gone is for a later look to say."""
        for target in targets:
            self.point("before destroy")
            try:
                accepted = self.backend.destroy(target)
            except ProviderError as e:
                self.report.fail(e)
                continue
            self.point("destroyed")
            if accepted:
                self.keep_if_possible(model, replace(self.state.record(model), delete_accepted=True))
            self.report.say(
                f"{model}: terminating {target}" if accepted else f"{model}: {target} is not known"
            )

    def destroy_orphan(self, orphan: Instance) -> None:
        """End a machine of ours that no record knows."""
        self.report.say(f"terminating {orphan.id} ({orphan.name}): no record knows it")
        try:
            self.backend.destroy(orphan.id)
        except ProviderError as e:
            self.report.fail(e)
        self.point("orphan destroyed")

    def adopt(self, model: str, orphan: Instance, managed: Managed, *, run_at: float) -> None:
        """Make a machine of ours, found without a record, the model's machine."""
        blank = _described(Record(run_at=run_at), managed)
        self.keep(model, decide.adopt(blank, orphan, policy=managed.policy, now=self.clock()))
        self.report.say(f"{model}: adopted {orphan.id} ({orphan.name})")

    def probe(self, model: str, seen: Instance, managed: Managed) -> None:
        """Ask the model server and act on what the answer means."""
        before = self.state.record(model)
        health = self._prober.check(
            seen,
            self.store.pod_key(before.name),
            managed.served_name,
            was_ready=before.ready_at is not None,
        )
        step = decide.after_probe(before, health, policy=managed.policy, now=self.clock())
        self.keep_if_possible(model, step.record)
        self.report.say(f"{model}: {step.why}")
        if health.ready:
            self.report.ready.add(model)
        if step.record.ready_at and not before.ready_at and before.created_at:
            self.store.add_start(step.record.gpu, step.record.model, step.record.ready_at - before.created_at)
        if step.act is Act.DESTROY:
            self.destroy(model, step.targets)


def _described(record: Record, managed: Managed) -> Record:
    return replace(
        record,
        model=managed.model,
        served_name=managed.served_name,
        spec_digest=managed.digest,
        config=dict(managed.config),
    )
