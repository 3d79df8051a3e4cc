"""Not the proxy's own changing of places: ``switch MODEL``, by which a person says which one of several runs now.

The others of its group (without a group: all others) are ordered down, as silence would: a request may start them
again, where requests do that. Answers in flight are waited for first.
"""

import argparse
import difflib
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import ClassVar

from llmpod.cli.command import Command, Invocation
from llmpod.cli.follow import LOCK_SECONDS, Follower, not_ready
from llmpod.cli.show import ALIVE
from llmpod.cli.wiring import Plane
from llmpod.config import Config
from llmpod.errors import Busy, NotRouted
from llmpod.lifecycle.want import BY_HAND
from llmpod.lifecycle.wish import IDLE, SILENT_SECONDS, latest
from llmpod.model import Direction, Phase, Usage, Want

POLL_SECONDS = 0.5


class NoSuchModel(NotRouted):
    """The command line names a model that is not configured."""

    exit_code: ClassVar[int] = 2


def arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and how long to wait for others."""
    parser.add_argument("model", help="its name in `models`, or an alias")
    parser.add_argument(
        "--wait", type=int, default=300, metavar="SECONDS", help="for answers in flight (300); 0: cut them"
    )


def switch(call: Invocation) -> int:
    """One model up, the others down; follows it until it is ready.

    Raises:
        NoSuchModel: there is none of that name.
        Busy: the others are at work for longer than we wait.
        LlmpodError: it does not start.
    """
    loaded = call.config()
    name = named(loaded, call.options.model)
    others = rivals(loaded, name)
    with call.plane(loaded=loaded) as plane:
        ran = [other for other in others if plane.store.load().record(other).phase in ALIVE]
        if call.options.wait:
            await_silence(plane, others, call.options.wait)
        _order(plane, name, others)
        follower = Follower(plane, call.console, verbose=call.verbose)
        await_end(plane, others, call.options.wait)
        record = follower.until_ready(name)
        if record.phase is not Phase.READY:
            raise not_ready(name, record)
        call.say(f"{name} runs" + (f"; {', '.join(ran)} stopped" if ran else ""))
        return 0


def named(config: Config, wanted: str) -> str:
    """The model of that name or alias. Raises NoSuchModel, with those that there are."""
    for name, model in config.models.items():
        if wanted in (name, model.hub_id, model.served_model_name, *model.aliases):
            return name
    near = difflib.get_close_matches(wanted, config.models, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    hint += f"There {'is' if len(config.models) == 1 else 'are'}: {', '.join(config.models)}."
    raise NoSuchModel(f"There is no model {wanted!r} in the configuration.", hint=hint)


def rivals(config: Config, name: str) -> list[str]:
    """Those that are to stop for a model: its group's others, or all where it is in none."""
    group = config.groups.get(config.group_of(name), tuple(config.models))
    return [other for other in group if other != name]


def _order(plane: Plane, name: str, others: Collection[str]) -> None:
    """One up, the others down; what was ordered down already stays so by the word that it was."""
    now, usage, models, before = plane.clock(), plane.store.usage(), plane.config.models, plane.store.orders()
    reason = f"switched to {name}"
    orders = {name: Want(Direction.UP, at=now, by="switch", reason=BY_HAND)}
    for other in others:
        if other in before and before[other].direction is Direction.DOWN:
            continue
        by = IDLE if models[other].on_request else "switch"
        orders[other] = Want(Direction.DOWN, at=now, by=by, reason=reason)
    plane.store.order(
        {model: replace(want, heard=latest(usage.get(model, Usage()))) for model, want in orders.items()}
    )


def await_silence(plane: Plane, others: Collection[str], seconds: float) -> None:
    """Wait until nothing of these models is in flight. Raises Busy: they are at work for longer."""

    def working() -> list[str]:
        usage, now = plane.store.usage(), plane.clock()
        known = {name: usage[name] for name in others if name in usage}
        return [
            n for n, use in known.items() if use.in_flight and abs(now - (use.at or 0.0)) < SILENT_SECONDS
        ]

    if not _until(lambda: not working(), seconds):
        raise Busy(
            f"{', '.join(working())}: still at work after {seconds:g} s.", hint="`--wait 0` cuts the answers."
        )


def await_end(plane: Plane, others: Collection[str], seconds: float) -> None:
    """Passes until these are gone. Raises Busy: they are not; a later pass goes on."""

    def gone() -> bool:
        phases = plane.run_pass(wait_seconds=LOCK_SECONDS).phases
        return not any(phases.get(other) in ALIVE for other in others)

    if not _until(gone, max(seconds, 60.0)):
        raise Busy(
            f"{', '.join(others)}: not gone yet.", hint="The orders stand; further passes carry them out."
        )


def _until(true: Callable[[], bool], seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while not true():
        if time.monotonic() > limit:
            return False
        time.sleep(POLL_SECONDS)
    return True


COMMAND = Command(
    "switch", "run this one of several models, and stop the others of its group", switch, arguments
)
