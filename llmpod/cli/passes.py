"""Not the lifecycle: the commands that order a model up or down and run passes."""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from rich.console import Console

from llmpod.cli import linger, show
from llmpod.cli.choice import leave_to_requests, meant
from llmpod.cli.command import Command, Invocation, json_flag
from llmpod.cli.follow import LOCK_SECONDS, Follower, not_ready
from llmpod.cli.plan import print_plans
from llmpod.cli.switch import await_end
from llmpod.cli.wiring import Plane, interactive
from llmpod.config import Config
from llmpod.errors import BadCredentials, Busy, ConfigError, LlmpodError, NoMoney, StateError
from llmpod.lifecycle import match
from llmpod.lifecycle.decide import Act
from llmpod.lifecycle.money import dollars, rate
from llmpod.lifecycle.nouns import thing, thing_of
from llmpod.lifecycle.orders import PROXY
from llmpod.lifecycle.records import SUSPECT_SECONDS
from llmpod.lifecycle.report import Report
from llmpod.lifecycle.want import BY_HAND
from llmpod.model import Direction, Phase, Want

SHUTDOWN = "--shutdown"
SHUTDOWN_SECONDS = 300.0
SETTLED = (Phase.READY, Phase.STOPPED, Phase.FAILED)


def one_pass(call: Invocation) -> int:
    """The default: what cron runs; at a terminal it also follows the start."""
    if not interactive():
        return linger.stay(call, partial(watchdog, call))
    with call.plane() as plane:
        _rearm(plane)
        if all(model.on_request for model in plane.config.models.values()):
            return _quiet_pass(plane, call.console, verbose=call.verbose)
        return _follow(plane, call, [n for n, model in plane.config.models.items() if not model.on_request])


def watchdog(call: Invocation) -> int:
    """Nobody looks on: a configuration that is being edited must not end the watch over what runs."""
    loaded, wrong = call.config_or_last()
    with call.plane(loaded=loaded) as plane:
        code = _quiet_pass(plane, call.console, verbose=call.verbose)
    if wrong is None:
        return code
    raise ConfigError(f"{wrong.message}\nThis pass went by the last good configuration.", hint=wrong.hint)


def up(call: Invocation) -> int:
    """A new run. Only a person or this command turns a sticky "down" round; cron never does.

    Raises:
        NoMoney: the budget is used up, so the order has turned round at once.
    """
    loaded = call.config()
    chosen = meant(loaded, call.options.model)
    with call.plane(loaded=loaded) as plane:
        plane.order(Direction.UP, by="up", reason=BY_HAND, proxy=True, models=chosen)
        if not call.options.model:
            leave_to_requests(plane, plane.config.models)
        if interactive():
            return _follow(plane, call, chosen)
        # one that is at work may have begun before the order
        code = _quiet_pass(plane, call.console, verbose=call.verbose, wait_seconds=LOCK_SECONDS)
        order = plane.store.orders()[chosen[0]]
        if order.by == "budget":
            raise NoMoney(
                f"Not started: {order.reason}.", hint="It renews at midnight UTC; or raise `budget`."
            )
        if any(record.phase not in SETTLED for record in plane.store.load().records.values()):
            call.say(
                "Further passes bring it up: `pass`, or `schedule install cron` for one every five minutes."
            )
    return code


def down(call: Invocation) -> int:
    """The pod's end, or that of some of the models; the proxy goes on serving its cache."""
    if not call.options.model:
        return _end(call, everything=False)
    loaded = call.config()
    chosen = meant(loaded, call.options.model)
    with call.plane(loaded=loaded) as plane:
        plane.order(Direction.DOWN, by="down", reason=BY_HAND, proxy=False, models=chosen)
        await_end(plane, chosen, SHUTDOWN_SECONDS)
        call.say(f"down: {', '.join(chosen)}")
    return 0


def _models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="*", help="of several: this one alone (its name in `models`, or an alias)"
    )


def shutdown(call: Invocation) -> int:
    """The end of everything that runs."""
    return _end(call, everything=True)


def status(call: Invocation) -> int:
    """What runs, from the files alone."""
    loaded, wrong = call.config_or_last()
    with call.plane(offline=True, loaded=loaded) as plane:
        show.print_status(plane, call.console, as_json=call.options.json)
    if wrong is not None:
        raise ConfigError(f"{wrong.message}\nThis is by the last good configuration.", hint=wrong.hint)
    return 0


def plan(call: Invocation) -> int:
    """Reading calls only."""
    with call.plane() as plane:
        without = print_plans(plane, call.console, keep=False, verbose=call.verbose)
        for model, step, seen in plane.reconciler().preview():
            called = thing_of(plane.config.models[model].backend)
            there = f" ({called} {seen.id}, {dollars(seen.usd_per_hour)}/h)" if seen else ""
            would = f"would {step.act.name.lower()}{there}: {step.why}"
            if step.act is Act.CREATE:
                plane.check(model)
            if step.act is Act.CREATE and model in without:
                would = f"would start nothing ({step.why}): no GPU can be taken, for the reasons above"
            call.say(f"{model}: {would}")
    return 0


def _end(call: Invocation, *, everything: bool) -> int:
    """The order is durable before anything else; then passes until the provider's list is empty of ours."""
    by = SHUTDOWN if everything else "down"
    loaded = call.config(salvage=True)
    try:
        call.key(loaded)
    except BadCredentials as e:
        raise _ordered_without_key(call, e, by=by, loaded=loaded) from None
    with call.plane(loaded=loaded) as plane:
        forced = plane.order(Direction.DOWN, by=by, reason=BY_HAND, proxy=everything)
        if forced:
            call.say("The order cannot be written down (disk full?): keep cron from running until it can.")
        follower = Follower(plane, call.console, verbose=call.verbose)
        try:
            gone = follower.until_gone(limit_seconds=SHUTDOWN_SECONDS, forced=forced)
        except BadCredentials as e:
            raise _without_key(e, plane) from None
        if gone:
            stopped = ", the proxy is stopped" if everything and plane.proxy else ""
            call.say(f"down: no {thing_of(loaded.common.backend)} of this installation exists{stopped}")
            others = [pod.name for pod in follower.foreign if match.of_any_installation(pod)]
            if others:
                call.say(f"Of other llmpod installations, left alone: {', '.join(others[:5])}")
            _warn_of_suspects(plane, call)
            return 0
    call.say("The order stands, but its end is not confirmed yet. Run the command again.")
    return 75


def _ordered_without_key(
    call: Invocation, error: BadCredentials, *, by: str, loaded: Config
) -> BadCredentials:
    """The order counts all the same: whoever has the key carries it out. What goes on costing is said."""
    with call.plane(offline=True, loaded=loaded) as plane:
        plane.order(Direction.DOWN, by=by, reason=BY_HAND, proxy=by == SHUTDOWN)
        return _without_key(error, plane)


def _without_key(error: BadCredentials, plane: Plane) -> BadCredentials:
    """What is to be said of an order that only the key can carry out."""
    text = f"{error.message} The order is written down and the next pass with a key carries it out; {_running(plane)}."
    return BadCredentials(text, hint=error.hint)


def _running(plane: Plane) -> str:
    """What goes on costing, by the file alone."""
    try:
        records = [r for r in plane.store.load().records.values() if r.instance_id]
    except StateError:
        records = []
    pods = ", ".join(
        f"{thing(r)} {r.instance_id} ({rate(r.usd_per_hour)} until {show.moment(r.switch_at or r.deadline)})"
        for r in records
    )
    return f"{pods} goes on" if pods else "nothing is known to run"


def _warn_of_suspects(plane: Plane, call: Invocation) -> None:
    """A pod whose creation or end got no clear answer may still show up: only later passes can see that."""
    with suppress(StateError):
        state = plane.store.load()
        for record in state.records.values():
            for name, at in record.suspects:
                if plane.now(state) - at < SUSPECT_SECONDS:
                    call.say(
                        f"{name} is not listed, but nobody confirmed its end: should it show up, each pass"
                    )
                    call.say("ends it. Leave the schedule on, or run this again in 30 s, 2 min and 10 min.")


def _follow(plane: Plane, call: Invocation, models: Sequence[str]) -> int:
    follower = Follower(plane, call.console, verbose=call.verbose)
    for model in models:
        try:
            record = follower.until_ready(model)
        except KeyboardInterrupt:
            call.say(f"The order stands: {_running(plane)}. `down` ends it.")
            raise
        except LlmpodError:
            call.say("The order stands, so the next pass tries again; `down` withdraws it.")
            raise
        if record.phase is not Phase.READY:
            raise not_ready(model, record)
    show.print_status(plane, call.console, as_json=False)
    return 0


def _rearm(plane: Plane) -> None:
    """A person who starts a pass at a terminal wants the model up; one that is up already keeps its deadline.

    What starts with the first request is left to requests, after a "down" as well.
    """
    try:
        orders, records = plane.store.orders(), plane.store.load().records
    except StateError:  # a person's order replaces what is damaged; the pass says what it does about the rest
        orders, records = {}, {}
    on_request = [name for name, model in plane.config.models.items() if model.on_request]
    always = [name for name in plane.config.models if name not in on_request]
    gave_up = any(record.phase is Phase.FAILED for name, record in records.items() if name in always)
    if gave_up or any(_is_down(orders.get(name)) for name in (*always, PROXY)):
        by, reason = "a person at the terminal", "pass by hand"
        plane.order(Direction.UP, by=by, reason=reason, proxy=True, models=always)
    with suppress(StateError):
        leave_to_requests(plane, on_request)


def _is_down(order: Want | None) -> bool:
    return order is None or order.direction is Direction.DOWN


def _quiet_pass(plane: Plane, console: Console, *, verbose: bool, wait_seconds: float = 0.0) -> int:
    """One line, or every step with ``--verbose``; ``wait_seconds``: for another pass."""
    try:
        report = plane.run_pass(wait_seconds=wait_seconds)
    except Busy as e:
        console.print(f"{_stamp()} {e.message} Nothing to do.", highlight=False)
        return 0
    if verbose:
        for line in report.lines:
            console.print(line, highlight=False, markup=False)
    console.print(f"{_stamp()} {_summary(plane, report)}", highlight=False, markup=False)
    return report.error.exit_code if report.error else 0


def _summary(plane: Plane, report: Report) -> str:
    try:
        records = plane.store.load().records
    except StateError:  # the report says so already
        records = {}
    states = [
        f"{name} {r.phase}" + (f" on {r.instance_id}{show.until(r)}" if r.instance_id else "")
        for name, r in records.items()
    ]
    last = str(report.error) if report.error else "; ".join(report.lines[-2:])
    return " | ".join(part for part in (", ".join(states), last) if part)


def _stamp() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


PASS = Command(
    "pass",
    "one watchdog pass (the default); at a terminal it follows the start until the model is ready",
    one_pass,
    linger.arguments,
)
UP = Command("up", "order the model up, for a new run, and follow its start", up, _models)
DOWN = Command(
    "down", "order the model down and see it gone; the proxy goes on serving its cache", down, _models
)
STATUS = Command("status", "what runs, why, until when, at what cost", status, json_flag)
PLAN = Command("plan", "the priced candidates and what a pass would do", plan)
