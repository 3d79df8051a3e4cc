"""Not the proxy and no owner of it: what the systemd unit of an installation runs when it starts and when it stops.

The proxy stays the manager's, so that a pass by hand, changed settings and ``--shutdown`` find it as ever; the unit
only says when it and the models are wanted. Its stop orders down what is up; its start takes back what its stop has
ordered, and no order of a person's. A mere restart of the unit is one of the proxy: models go on, for a start of one
may take minutes and money.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace

from llmpod.cli.command import Command, Invocation
from llmpod.cli.follow import Follower
from llmpod.cli.passes import SHUTDOWN_SECONDS, watchdog
from llmpod.cli.scheduled import manage
from llmpod.cli.wiring import Plane
from llmpod.errors import StateError
from llmpod.lifecycle.orders import PROXY
from llmpod.lifecycle.units import UserUnits
from llmpod.lifecycle.wish import IDLE, OF_MACHINES, latest
from llmpod.model import Direction, Usage, Want

UNIT = "the systemd unit"
STOPPED, RESTARTED = "the unit was stopped", "the unit is restarted"
UNFINISHED = 75


def run(call: Invocation) -> int:
    """``service start|stop``."""
    return _start(call) if call.options.action == "start" else _stop(call)


def _start(call: Invocation) -> int:
    """Take back what the unit's stop ordered, and run a pass. What costs money by the hour is left to a person."""
    with call.plane(offline=True, loaded=call.config_or_last()[0]) as plane:
        orders, models = plane.store.orders(), plane.config.models
        down = {name: want for name, want in orders.items() if want.direction is Direction.DOWN}
        back = [
            n for n, want in down.items() if want.by == UNIT and not (n in models and models[n].is_billed)
        ]
        now = plane.clock()
        plane.store.order(
            {
                name: replace(down[name], direction=Direction.UP, at=now, reason="the unit started")
                for name in back
            }
        )
        for name in sorted(down.keys() - set(back)):
            if down[name].by not in OF_MACHINES:
                what = "the proxy" if name == PROXY else name
                call.say(f"{what} stays down (by {down[name].by}). To change that: {manage(call, 'up')}")
    return watchdog(call)


def _stop(call: Invocation) -> int:
    """Order down what is up, and see it gone; of a unit that is being restarted, the proxy alone."""
    loaded = call.config(salvage=True)
    with call.plane(offline=True, loaded=loaded) as plane:  # the order counts although there may be no key
        units = UserUnits(plane.store.install_id, call.environ)
        if not units.has_models():
            call.say("The unit was removed; what runs goes on.")
            return 0
        restarts = units.restarts()
        orders = _proxy_down(plane) if restarts else _all_down(plane)
        forced = _written(plane, orders)
    with call.plane(loaded=loaded) as plane:
        if restarts:
            report = plane.run_pass(wait_seconds=SHUTDOWN_SECONDS, forced=forced)
            return report.error.exit_code if report.error else 0
        follower = Follower(plane, call.console, verbose=call.verbose)
        if follower.until_gone(limit_seconds=SHUTDOWN_SECONDS, forced=forced):
            call.say("down: the proxy and all models are stopped")
            return 0
    call.say("The order stands, but the end of a model is not confirmed yet; each further pass looks.")
    return UNFINISHED


def _proxy_down(plane: Plane) -> dict[str, Want]:
    up = _orders(plane).get(PROXY)
    if up is not None and up.direction is Direction.DOWN:
        return {}
    return {PROXY: Want(Direction.DOWN, at=plane.clock(), by=UNIT, reason=RESTARTED)}


def _all_down(plane: Plane) -> dict[str, Want]:
    """The orders. A person's "down" stays theirs; a wish that came meanwhile is heard, so that it starts nothing."""
    orders, usage, now = _orders(plane), plane.store.usage(), plane.clock()
    made = _proxy_down(plane)
    for name, model in plane.config.models.items():
        want, heard = orders.get(name), latest(usage.get(name, Usage()))
        if want is None or want.direction is Direction.UP:
            by = IDLE if model.on_request else UNIT
            made[name] = Want(Direction.DOWN, at=now, by=by, reason=STOPPED, heard=heard)
        elif want.by in OF_MACHINES:
            made[name] = replace(want, heard=heard)
    return made


def _orders(plane: Plane) -> Mapping[str, Want]:
    try:
        return plane.store.orders()
    except StateError:  # damaged: what is ordered now replaces it
        return {}


def _written(plane: Plane, orders: Mapping[str, Want]) -> Mapping[str, Want]:
    """Those that could not be written down, so that this stop's passes must be told."""
    try:
        plane.store.order(orders)
    except StateError:
        return orders
    return {}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("start", "stop"))


COMMAND = Command(
    "service",
    "what the unit of `schedule install systemd --proxy` runs when it starts and stops",
    run,
    _arguments,
)
