"""Not a pass's usual way: what one does that cannot see, its state unreadable or a listing denied."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from llmpod.backends import SomeAway
from llmpod.errors import ProviderError, StateError
from llmpod.lifecycle import records
from llmpod.lifecycle.act import Actor, Managed
from llmpod.lifecycle.audit import Audit
from llmpod.lifecycle.orders import Orders
from llmpod.model import Direction, Instance, Want


class Blind:
    """What can be done all the same.

    Args:
        actor: the effects and the state.
        models: what is managed, by model name.
        orders: those of this pass.
        audit: the look at everything of ours.
    """

    def __init__(self, actor: Actor, models: Mapping[str, Managed], orders: Orders, audit: Audit) -> None:
        self._actor = actor
        self._models = models
        self._orders = orders
        self._audit = audit

    def miss_no_state(self) -> None:
        """Where a machine was ever bought, a state file that is not there is lost, not new. Raises StateError."""
        state_file = self._actor.store.state_file
        if self._actor.purse.was_used and not state_file.exists():
            raise StateError(f"{state_file} is gone, and what it knew of machines that may still run.")

    def end(self, orders: Mapping[str, Want], models: Iterable[str]) -> None:
        """The listing failed: a deadline or a "down" is still carried out on the id that we know."""
        actor, now = self._actor, self._actor.memory.now()
        for model in models:
            want, record = self._orders.to_end(model, orders.get(model)), actor.memory.record(model)
            if want is not None and record.instance_id and not record.delete_accepted:
                ending = records.ending(replace(record, down_reason=want.reason), now)
                actor.memory.keep_if_possible(model, ending)
                actor.destroy(model, (record.instance_id,))

    def without_state(self, orders: Mapping[str, Want], *, newer: bool) -> None:
        """The state is unreadable: adopt or end what the provider shows of ours, and create nothing for a while.

        A state file of a newer version is left alone; there a "down" still ends everything of ours.
        """
        try:
            instances: Sequence[Instance] = self._audit.ours()
        except SomeAway as e:
            self._actor.report.fail(e)  # the others' machines are nobody's until they can be seen
            instances = e.listing.instances
        except ProviderError as e:
            self._actor.report.fail(e)
            return
        if newer:
            down = all(orders[model].direction is Direction.DOWN for model in self._models)
            for instance in instances if down else ():
                self._audit.destroy(instance)
            return
        self._audit.rebuild(instances, orders)
