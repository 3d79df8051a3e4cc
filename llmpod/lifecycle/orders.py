"""Not the file of orders: which order binds each model and the proxy in this pass, and what becomes of them."""

from collections.abc import Mapping
from dataclasses import replace

from llmpod.errors import StateError
from llmpod.lifecycle.act import Actor, Managed
from llmpod.lifecycle.want import first_order, lapsed, overruled
from llmpod.model import Direction, Phase, Want

PROXY = "@proxy"  # the name under which the proxy's own order stands


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

    def read(self) -> dict[str, Want]:
        """The order in force for each model and the proxy; a first order is written down before it binds."""
        now, actor = self._actor.memory.now(), self._actor
        names = (*self._models, PROXY)
        try:
            orders = actor.store.orders()
            if fresh := {model: self._first(model, now) for model in names if model not in orders}:
                actor.store.order_instead({}, fresh)
                actor.point("orders written")
                orders = actor.store.orders()
        except StateError as e:
            actor.report.fail(e)
            self.intact = False
            orders = {model: self._as_before(model) for model in names}
        return {model: lapsed(want, now) for model, want in {**orders, **self._forced}.items()}

    def _first(self, model: str, now: float) -> Want:
        """The first order of all, or, where a run is remembered and only its order is lost, no start."""
        records = self._actor.memory.state.records.values()
        remembered = any(record.run_at is not None for record in records)
        alive = [record for record in records if record.phase not in (Phase.STOPPED, Phase.FAILED)]
        if not remembered or (model == PROXY and alive):
            return first_order(now)
        if self._actor.memory.record(model) in alive:
            return replace(self._as_before(model), reason="the order was lost")
        return Want(Direction.DOWN, at=now, by="lost orders", reason="the file of orders was lost")

    def _as_before(self, model: str) -> Want:
        """The order to act on when orders cannot be read: go on with what runs, until its deadline."""
        run_at = self._actor.memory.record(model).run_at
        return Want(Direction.UP, at=run_at or 0.0, by="the run before", reason="orders are unreadable")

    def in_force(self, model: str, want: Want) -> Want:
        """The order, or the sticky "down" that its passed deadline or the used-up budget has become."""
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
