"""Not a decision: carries out one step for one model, and writes down before and after what it does."""

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from llmpod.backends import Backend
from llmpod.errors import (
    BadSpec,
    CreateUnknown,
    LlmpodError,
    NoCapacity,
    NoMoney,
    ProviderError,
    ProviderUnavailable,
    Refused,
    StateError,
)
from llmpod.lifecycle import decide, match, records
from llmpod.lifecycle.decide import Act, Policy
from llmpod.lifecycle.memory import Memory
from llmpod.lifecycle.money import rate
from llmpod.lifecycle.purse import Purse
from llmpod.lifecycle.store import Store
from llmpod.lifecycle.wish import Terms
from llmpod.model import Event, Health, Instance, Offer, Phase, Record, Spec
from llmpod.secret import Secret

NO_CAPACITY_SECONDS = 60.0
ACCOUNT_SECONDS = 300.0


class Prober(Protocol):
    """Asks a model server how far it is; see :class:`llmpod.lifecycle.probe.HttpProber`."""

    def check(
        self, seen: Instance, api_key: Secret | None, served_name: str, *, was_ready: bool
    ) -> Health: ...


@dataclass(frozen=True, slots=True)
class Managed:
    """One model under management: what to create for it and which limits bind it.

    Args:
        digest: names the configuration; a machine made from another one is replaced.
        model: the Hugging Face id.
        served_name: the name that clients send.
        policy: its limits.
        config: the configuration's snapshot, for the state file.
        key_file: see :class:`llmpod.model.Record`.
        terms: when requests start it.
        holds: what it shares with nobody at a time, though others may be configured for it; empty: nothing.
        draw: makes the specification when one is needed; may ask the hub and the catalog and raise LlmpodError. Its
            argument says when which offer (by ``Offer.key``) could not be had a moment ago.
    """

    digest: str
    model: str
    served_name: str
    policy: Policy
    draw: Callable[[Mapping[str, float]], Spec]
    config: Mapping[str, object] = field(default_factory=dict)
    key_file: str | None = None
    terms: Terms = field(default_factory=Terms)
    holds: str = ""


class Actor:
    """The effects of one pass. The caller holds the store's lock.

    Args:
        store: the files.
        backend: the provider.
        prober: asks model servers.
        purse: the money.
        clock: epoch seconds of this machine; the provider's own clock corrects it once it is known.
        uptime: see :class:`llmpod.lifecycle.memory.Memory`.
        point: called with a name at every effect; tests crash here.
        tell: takes what is worth telling a person.
        last_words: keeps the last log lines of a machine that never became ready, and says where.
        spend: what the account spends in USD per hour by its own figure, or None.
    """

    def __init__(
        self,
        store: Store,
        backend: Backend,
        prober: Prober,
        *,
        purse: Purse,
        clock: Callable[[], float],
        point: Callable[[str], None],
        tell: Callable[[Event], None] = lambda _: None,
        last_words: Callable[[Record], str] = lambda _: "",
        spend: Callable[[], float | None] = lambda: None,
        uptime: Callable[[], tuple[str, float] | None] = lambda: None,
    ) -> None:
        self.memory = Memory(store, clock=clock, point=point, tell=tell, uptime=uptime)
        self.store = store
        self.backend = backend
        self.point = point
        self.report = self.memory.report
        self.purse = purse
        self.spend = spend
        self._last_words = last_words
        self._prober = prober

    def create(self, model: str, managed: Managed) -> None:
        """Intent first, on disk; then one call for each candidate until one is taken or the answer is unclear."""
        try:
            spec = managed.draw(self.memory.refused())
            if not spec.offers:
                raise NoCapacity(_nothing_left(spec))
        except LlmpodError as e:
            self._not_drawn(model, e, managed)
            return
        record, now = self.memory.record(model), self.memory.now()
        name = match.new_name(self.store.install_id, model, secrets.token_hex(6))
        end = record.deadline or now + managed.policy.runtime_seconds
        intent = records.begin(record, name, deadline=end, now=now)
        self.memory.keep(model, _described(intent, managed))
        self.purse.open()
        self.point("intent saved")
        self._try_offers(model, managed, spec, end=end)

    def _try_offers(self, model: str, managed: Managed, spec: Spec, *, end: float) -> None:
        name, refusals = self.memory.record(model).name, list[ProviderError]()
        for offer in spec.offers:
            try:
                deadline = self._armed(model, spec, offer, end=end)
            except NoMoney as e:  # our own budget: a cheaper one may do
                self.report.say(f"{model}: {offer.gpu} is over the budget")
                refusals.append(e)
                continue
            try:
                made = self._create_one(spec, offer, name, deadline=deadline)
            except NoCapacity as e:
                self.report.say(f"{model}: no {offer.gpu} to be had: {e.message}")
                self.memory.refuse(offer.key)
                refusals.append(e)
            except ProviderError as e:
                self._not_made(model, e)
                return
            else:
                self._made(model, made, managed.policy)
                return
        self._not_made(model, refusals[-1])

    def _armed(self, model: str, spec: Spec, offer: Offer, *, end: float) -> float:
        """The deadline for the machine's own switch: the run's end, or when the budget ends at this price.

        Raises:
            NoMoney: the rest of the budget does not buy a minute of it.
        """
        limit = self.purse.until(offer.usd_per_hour, self.memory.now())
        deadline = end if limit is None else min(end, limit)
        # The list price stands in until the provider names what it bills.
        switch_at = deadline if spec.has_switch else None
        record = replace(self.memory.record(model), switch_at=switch_at, usd_per_hour=offer.usd_per_hour)
        self.memory.keep(model, record)
        return deadline

    def _not_drawn(self, model: str, error: LlmpodError, managed: Managed) -> None:
        """Nobody knows yet what to create: a wrong configuration stays so, a source out of reach comes back."""
        self.report.fail(error)
        passing = isinstance(error, ProviderUnavailable | NoCapacity)
        retry_at = self.memory.now() + (error.retry_after or NO_CAPACITY_SECONDS) if passing else None
        record = records.not_created(self.memory.record(model), str(error), retry_at=retry_at)
        self.memory.keep(model, _described(record, managed))

    def _create_one(self, spec: Spec, offer: Offer, name: str, *, deadline: float) -> Instance:
        self.point("before create")
        secret = {"VLLM_API_KEY": self.store.pod_key(name).reveal()}
        made = self.backend.create(spec, offer, name, secret, deadline=deadline)
        self.point("created")
        return made

    def _made(self, model: str, made: Instance, policy: Policy) -> None:
        record = records.adopt(
            self.memory.record(model), made, runtime_seconds=policy.runtime_seconds, now=self.memory.now()
        )
        self.memory.keep(model, record)
        with suppress(StateError):  # the next pass lists it, and writes it down then
            self.purse.note(made, self.memory.state.records, now=self.memory.now())
        self.report.say(f"{model}: created {made.id} ({record.gpu}, {rate(record.usd_per_hour)})")

    def _not_made(self, model: str, error: ProviderError) -> None:
        """The create call failed: unclear, or clearly without effect; the error's class says which."""
        record, now = self.memory.record(model), self.memory.now()
        self.report.fail(error)
        if isinstance(error, CreateUnknown):
            self.memory.keep(model, replace(record, phase=Phase.UNKNOWN, error=str(error)))
            return
        retry_at: float | None = now + (error.retry_after or NO_CAPACITY_SECONDS)
        if isinstance(error, BadSpec):
            retry_at = None
        elif isinstance(error, NoMoney | Refused):
            retry_at = now + ACCOUNT_SECONDS
        self.memory.keep(model, records.not_created(record, str(error), retry_at=retry_at))

    def keep_last_words(self, model: str, record: Record) -> None:
        """Before a machine that never became ready is ended: why, in its own words. ``record``: as it is to be."""
        if record.instance_id and record.ready_at is None and (where := self._last_words(record)):
            self.report.say(f"{model}: its last log lines are in {where}")

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
                self.memory.keep_if_possible(model, replace(self.memory.record(model), delete_accepted=True))
            self.report.say(
                f"{model}: terminating {target}" if accepted else f"{model}: {target} is not known"
            )

    def adopt(self, model: str, orphan: Instance, managed: Managed, *, run: Record) -> None:
        """Make a machine of ours, found without a record, the model's machine in a ``run``."""
        blank = _described(run, managed)
        self.memory.keep_if_possible(
            model,
            records.adopt(
                blank, orphan, runtime_seconds=managed.policy.runtime_seconds, now=self.memory.now()
            ),
        )
        self.report.say(f"{model}: adopted {orphan.id} ({orphan.name})")

    def probe(self, model: str, seen: Instance, managed: Managed, *, answering: bool) -> None:
        """Ask the model server and act on what the answer means; ``answering``: see ``decide.after_probe``."""
        before = self.memory.record(model)
        health = self._prober.check(
            seen,
            self.store.server_key(before),
            managed.served_name,
            was_ready=before.ready_at is not None,
        )
        if health.wants_other_key and not seen.listens():  # then it may be another's server who answers
            health = replace(health, wants_other_key=False)
        step = decide.after_probe(
            before, health, policy=managed.policy, now=self.memory.now(), answering=answering
        )
        self.memory.keep_if_possible(model, step.record)
        self.report.say(f"{model}: {step.why}")
        if health.ready:
            self.report.ready.add(model)
        if step.record.ready_at and not before.ready_at and before.created_at:
            self.store.add_start(step.record.gpu, step.record.model, step.record.ready_at - before.created_at)
        if step.act is Act.DESTROY:
            self.destroy(model, step.targets)


def _nothing_left(spec: Spec) -> str:
    """Why there is no candidate, with the nearest misses."""
    misses = "; ".join(f"{offer.gpu}: {offer.note}" for offer in spec.rejected[:3])
    return "No GPU type can be taken" + (f" ({misses})." if misses else ".")


def _described(record: Record, managed: Managed) -> Record:
    return replace(
        record,
        model=managed.model,
        served_name=managed.served_name,
        spec_digest=managed.digest,
        config=dict(managed.config),
        key_file=managed.key_file,
    )
