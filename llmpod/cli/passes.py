"""Not the lifecycle: the commands that order a model up or down and run passes."""

import re
from contextlib import suppress
from datetime import UTC, datetime

from rich.console import Console

from llmpod.cli import show
from llmpod.cli.command import Command, Invocation, json_flag
from llmpod.cli.follow import Follower
from llmpod.cli.plan import print_plans
from llmpod.cli.wiring import Plane, interactive
from llmpod.errors import Busy, ConfigError, LlmpodError, StateError
from llmpod.lifecycle.match import ANY_INSTALLATION
from llmpod.lifecycle.orders import PROXY
from llmpod.lifecycle.records import SUSPECT_SECONDS
from llmpod.lifecycle.report import Report
from llmpod.model import Direction, Phase

SHUTDOWN_SECONDS = 300.0


def one_pass(call: Invocation) -> int:
    """The default: what cron runs; at a terminal it also follows the start."""
    if not interactive():
        return _watchdog(call)
    with call.plane() as plane:
        _rearm(plane)
        return _follow(plane, call)


def _watchdog(call: Invocation) -> int:
    """Nobody looks on: a configuration that is being edited must not end the watch over what runs."""
    try:
        loaded, wrong = call.config(), None
    except ConfigError as e:
        kept = call.last_config()
        if kept is None:
            raise
        loaded, wrong = kept, e
    with call.plane(loaded=loaded) as plane:
        code = _quiet_pass(plane, call.console, verbose=call.verbose)
    if wrong is None:
        return code
    raise ConfigError(f"{wrong.message}\nThis pass went by the last good configuration.", hint=wrong.hint)


def up(call: Invocation) -> int:
    """A new run. Only a person or this command turns a sticky "down" round; cron never does."""
    with call.plane() as plane:
        plane.order(Direction.UP, by="up", reason="ordered by hand", proxy=True)
        return (
            _follow(plane, call) if interactive() else _quiet_pass(plane, call.console, verbose=call.verbose)
        )


def down(call: Invocation) -> int:
    """The pod's end; the proxy goes on serving its cache."""
    return _end(call, everything=False)


def shutdown(call: Invocation) -> int:
    """The end of everything that runs."""
    return _end(call, everything=True)


def status(call: Invocation) -> int:
    """What runs, from the files alone."""
    with call.plane(offline=True) as plane:
        show.print_status(plane, call.console, as_json=call.options.json)
    return 0


def plan(call: Invocation) -> int:
    """Reading calls only."""
    with call.plane() as plane:
        print_plans(plane, call.console, keep=False, verbose=call.verbose)
        for model, step, seen in plane.reconciler().preview():
            there = f" (pod {seen.id}, {show.dollars(seen.usd_per_hour)}/h)" if seen else ""
            call.say(f"{model}: would {step.act.name.lower()}{there}: {step.why}")
    return 0


def _end(call: Invocation, *, everything: bool) -> int:
    """The order is durable before anything else; then passes until the provider's list is empty of ours."""
    by = "--shutdown" if everything else "down"
    with call.plane(salvage=True) as plane:
        forced = plane.order(Direction.DOWN, by=by, reason="ordered by hand", proxy=everything)
        if forced:
            call.say("The order cannot be written down (disk full?): keep cron from running until it can.")
        follower = Follower(plane, call.console, verbose=call.verbose)
        if follower.until_gone(limit_seconds=SHUTDOWN_SECONDS, forced=forced):
            stopped = ", the proxy is stopped" if everything and plane.proxy else ""
            call.say(f"down: no pod of this installation exists{stopped}")
            others = [pod.name for pod in follower.foreign if re.match(ANY_INSTALLATION, pod.name)]
            if others:
                call.say(f"Of other llmpod installations, left alone: {', '.join(others[:5])}")
            _warn_of_suspects(plane, call)
            return 0
    call.say("The order stands, but the pod's end is not confirmed yet. Run the command again.")
    return 75


def _warn_of_suspects(plane: Plane, call: Invocation) -> None:
    """A pod whose creation or end got no clear answer may still show up: only later passes can see that."""
    with suppress(StateError):
        for record in plane.store.load().records.values():
            for name, at in record.suspects:
                if plane.clock() - at < SUSPECT_SECONDS:
                    call.say(
                        f"{name} is not listed, but nobody confirmed its end: should it show up, each pass"
                    )
                    call.say("ends it. Leave the schedule on, or run this again in 30 s, 2 min and 10 min.")


def _follow(plane: Plane, call: Invocation) -> int:
    follower = Follower(plane, call.console, verbose=call.verbose)
    for model in plane.config.models:
        record = follower.until_ready(model)
        if record.phase is not Phase.READY:
            raise LlmpodError(f"{model} is {record.phase}: {record.error or record.down_reason}")
    show.print_status(plane, call.console, as_json=False)
    return 0


def _rearm(plane: Plane) -> None:
    """A person who starts a pass at a terminal wants the model up; one that is up already keeps its deadline."""
    try:
        orders, records = plane.store.orders(), plane.store.load().records
    except StateError:  # a person's order replaces what is damaged; the pass says what it does about the rest
        orders, records = {}, {}
    names = (*plane.config.models, PROXY)
    gave_up = any(record.phase is Phase.FAILED for record in records.values())
    if gave_up or any(name not in orders or orders[name].direction is Direction.DOWN for name in names):
        plane.order(Direction.UP, by="a person at the terminal", reason="pass by hand", proxy=True)


def _quiet_pass(plane: Plane, console: Console, *, verbose: bool) -> int:
    """One line, or every step with ``--verbose``."""
    try:
        report = plane.run_pass()
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
        f"{name} {r.phase}"
        + (f" on {r.instance_id}, until {show.moment(r.deadline)}" if r.instance_id else "")
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
)
UP = Command("up", "order the model up, for a new run, and follow its start", up)
DOWN = Command("down", "order the model down and see the pod gone; the proxy goes on serving its cache", down)
STATUS = Command("status", "what runs, why, until when, at what cost", status, json_flag)
PLAN = Command("plan", "the priced candidates and what a pass would do", plan)
