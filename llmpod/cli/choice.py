"""Not an order: which models a command means that names none, and what is left to requests."""

from collections.abc import Collection, Sequence

from llmpod.cli.show import ALIVE
from llmpod.cli.switch import named
from llmpod.cli.wiring import Plane
from llmpod.config import Config
from llmpod.errors import StateError
from llmpod.lifecycle.wish import OF_MACHINES, asleep
from llmpod.model import Direction, Usage


def meant(config: Config, names: Sequence[str]) -> list[str]:
    """Those that are named; else all, but of a group only one, since no two of it run together."""
    if names:
        return [named(config, name) for name in names]
    first = {group: config.default if config.default in of else of[0] for group, of in config.groups.items()}
    return [name for name in config.models if first.get(config.group_of(name), name) == name]


def running(plane: Plane) -> list[str]:
    """The models that have a machine, as far as that can be read."""
    try:
        records = plane.store.load().records
    except StateError:  # the pass says what it does about it
        return []
    return [name for name in plane.config.models if name in records and records[name].phase in ALIVE]


def for_a_run(plane: Plane) -> list[str]:
    """What a run brings up: all that run always; where all start with requests, one: what runs, or the default."""
    config = plane.config
    if always := [name for name, model in config.models.items() if not model.on_request]:
        return always
    there = running(plane)
    return [there[0] if there and config.default not in there else config.default]


def leave_to_requests(plane: Plane, models: Collection[str]) -> None:
    """Lift a person's "down" from those of the models that requests start: the next one may.

    Raises:
        StateError: the orders cannot be read or written.
    """
    orders, usage, now = plane.store.orders(), plane.store.usage(), plane.clock()
    kept_down = [
        name
        for name in models
        if plane.config.models[name].on_request
        and (order := orders.get(name)) is not None
        and order.direction is Direction.DOWN
        and order.by not in OF_MACHINES
    ]
    plane.store.order({name: asleep(now, usage.get(name, Usage())) for name in kept_down})
