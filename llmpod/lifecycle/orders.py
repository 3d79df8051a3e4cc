"""Not the file of orders: which order binds each model and the proxy in this pass, and what becomes of them."""

from collections.abc import Mapping
from dataclasses import replace

from llmpod.errors import StateError
from llmpod.lifecycle.act import Actor, Managed
from llmpod.lifecycle.want import first_order, lapsed, overruled
from llmpod.lifecycle.wish import SILENT_SECONDS, asleep, barred, forgotten, heard
from llmpod.model import Direction, Phase, Usage, Want

PROXY = "@proxy"  # the name under which the proxy's own order stands
JUST_NOW_SECONDS = 30.0  # longer than between two tokens


class Orders:
    """The orders of one pass.

    Args:
        actor: the files and the time.
        models: what is managed.
        forced: orders that bind this pass although they could not be written down.

    Attributes:
        intact: they could be read; else nothing is created.
    """

    def __init__(self, actor: Actor, models: Mapping[str, Managed], forced: Mapping[str, Want]) -> None:
        self.intact = True
        self._actor = actor
        self._models = models
        self._forced = forced
        self._usage: Mapping[str, Usage] = {}

    def read(self) -> dict[str, Want]:
        """The order in force for each model and the proxy; a first order is written down before it binds."""
        now, actor = self._actor.memory.now(), self._actor
        self._usage = actor.store.usage()
        names = (*self._models, PROXY)
        try:
            orders = actor.store.orders()
            missing = [model for model in names if model not in orders]
            if fresh := {model: self._first(model, now, alone=not orders) for model in missing}:
                actor.store.order_instead({}, fresh)
                actor.point("orders written")
                orders = actor.store.orders()
        except StateError as e:
            actor.report.fail(e)
            self.intact = False
            orders = {model: self._as_before(model) for model in names}
        return {model: lapsed(want, now) for model, want in {**orders, **self._forced}.items()}

    def _first(self, model: str, now: float, *, alone: bool) -> Want:
        """The first order of all, or, where a run is remembered and only its order is lost, no start.

        Args:
            model: the model or the proxy.
            now: the time.
            alone: there is no order at all; else a model of which nothing is remembered has just been added.
        """
        known = self._actor.memory.state.records
        records = known.values()
        remembered = any(record.run_at is not None for record in records)
        if not alone and model != PROXY and model not in known:  # wishes for a former one of its name are old
            return self.untold(model, now, self._usage.get(model))
        alive = [record for record in records if record.phase not in (Phase.STOPPED, Phase.FAILED)]
        if not remembered or (model == PROXY and alive):
            return self.untold(model, now)
        if self._actor.memory.record(model) in alive:
            return replace(self._as_before(model), reason="the order was lost")
        return Want(Direction.DOWN, at=now, by="lost orders", reason="the file of orders was lost")

    def untold(self, model: str, now: float, usage: Usage | None = None) -> Want:
        """What is wanted of a model or the proxy of which nobody ever said anything but the wishes in ``usage``."""
        on_request = model in self._models and self._models[model].terms.on_request
        return asleep(now, usage) if on_request else first_order(now)

    def _as_before(self, model: str) -> Want:
        """The order to act on when orders cannot be read: go on with what runs, until its deadline."""
        run_at = self._actor.memory.record(model).run_at
        return Want(Direction.UP, at=run_at or 0.0, by="the run before", reason="orders are unreadable")

    def in_force(self, model: str, want: Want) -> Want:
        """The order, or what the proxy's wish, a passed deadline or the used-up budget has made of it."""
        order, memory = self._as_overruled(model, want), self._actor.memory
        if model in self._models:  # nobody wishes for one that was removed
            terms, allowed = self._models[model].terms, self._actor.purse.allowed(memory.now())
            memory.bar(model, barred(order, memory.record(model), terms=terms, allowed=allowed))
        return order

    def _as_overruled(self, model: str, want: Want) -> Want:
        want = want if model in self._forced else self._hear(model, want)
        record, now = self._actor.memory.record(model), self._actor.memory.now()
        order = overruled(want, record, self._actor.purse.allowed(now), now)
        if order is None:
            return want
        try:
            self._actor.store.order_instead({model: want}, {model: order})
        except StateError as e:
            self._actor.report.fail(e)
        self._actor.point("expiry written")
        return order

    def free(self, model: str) -> bool:
        """Whether nobody is answered by a model's machine: the proxy has let it go, or is not there to send it any."""
        record, usage = self._actor.memory.record(model), self._usage.get(model, Usage())
        silent = usage.at is None or abs(self._actor.memory.wall - usage.at) >= SILENT_SECONDS
        return silent or record.ready_at is None or usage.let_go == record.name

    def answers(self, model: str) -> bool:
        """Whether somebody is answered by a model's machine, and has heard from it just now, by the proxy's word."""
        usage, now = self._usage.get(model, Usage()), self._actor.memory.wall
        return usage.in_flight > 0 and abs(now - (usage.last_byte or 0.0)) < JUST_NOW_SECONDS

    def end_of(self, model: str, want: Want | None, *, alive: bool) -> Want | None:
        """The "down" for a model that is configured no more; None while its machine may finish what it answers.

        Args:
            model: which one.
            want: its order, if it has one.
            alive: its machine is there and well.
        """
        memory, now = self._actor.memory, self._actor.memory.now()
        up = want is not None and want.direction is Direction.UP
        if alive and up and want is not None and not self.free(model):
            want = overruled(want, memory.record(model), self._actor.purse.allowed(now), now)
            if want is None:
                return None
        end = Want(Direction.DOWN, at=now, by="configuration", reason="it was removed from the configuration")
        self._forced = {**self._forced, model: end}
        return end

    def to_end(self, model: str, want: Want | None) -> Want | None:
        """The "down" in force for a model of which nothing can be seen, whether it is configured or not; else None."""
        known = model in self._models
        order = self.in_force(model, want) if want and known else self.end_of(model, want, alive=True)
        return order if order is not None and order.direction is Direction.DOWN else None

    def _hear(self, model: str, want: Want) -> Want:
        """The order after the proxy's last wish."""
        memory, terms = self._actor.memory, self._models[model].terms
        record, usage = memory.record(model), self._usage.get(model, Usage())
        found = heard(want, record, usage, terms=terms, allowed=self._actor.purse.allowed(memory.now()))
        if found is not None:
            memory.unwoken(model, found.refusal)
            return self._instead(model, want, found.order)
        quiet = forgotten(want, record, usage, terms=terms, now=memory.wall)
        return want if quiet is None else self._instead(model, want, quiet)

    def _instead(self, model: str, want: Want, order: Want) -> Want:
        """Write an order down; a person's newer word stands. Nothing is started on one that would be forgotten."""
        store = self._actor.store
        try:
            store.order_instead({model: want}, {model: order})
            order = store.orders().get(model, order)
        except StateError as e:
            self._actor.report.fail(e)
            order = want if order.direction is Direction.UP else order
        self._actor.point("wish written")
        return lapsed(order, self._actor.memory.now())
