"""Not a repair: the command ``doctor``, which looks at all that a pass needs and names the mend for what is wrong."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from llmpod.cli import checks_files, checks_running, checks_schedule
from llmpod.cli.checks import Check, Site, Status, site, worst
from llmpod.cli.checks_as_cron import rerun
from llmpod.cli.checks_docker import container
from llmpod.cli.checks_provider import provider
from llmpod.cli.command import Command, Invocation, json_flag
from llmpod.cli.scheduled import Installed
from llmpod.errors import LlmpodError
from llmpod.lifecycle.files import write_atomic

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.PROBLEM: "bold red"}


def run(call: Invocation) -> int:
    """Print every finding; 1 when there is a problem."""
    if call.options.report:
        _report(call, call.options.report)
        return 0
    # what both the job and this terminal find is told once
    checks = list(dict.fromkeys(_as_cron(call) if call.options.as_cron else _here(call)))
    status = worst(checks)
    if call.options.json:
        document = {
            "ok": status is not Status.PROBLEM,
            "as_cron": call.options.as_cron,
            "checks": [check.document() for check in checks],
        }
        print(json.dumps(document, indent=2))
    else:
        _print(call, checks)
    return 1 if status is Status.PROBLEM else 0


def _here(call: Invocation) -> Iterator[Check]:
    """As this terminal sees it."""
    there, directory = site(call, checks_files.directory)
    yield from _common(there, directory)
    yield from _scheduling(there, checks_schedule.installed(there))


def _as_cron(call: Invocation) -> Iterator[Check]:
    """As a scheduled pass sees it; what is scheduled is seen from here only."""
    there, directory = site(call, checks_files.directory)
    if directory.status is Status.PROBLEM:
        yield directory
    found = checks_schedule.installed(there)
    yield from rerun(there, found if isinstance(found, Installed) else None)
    yield from _scheduling(there, found)


def _scheduling(there: Site, found: Installed | LlmpodError) -> Iterator[Check]:
    yield from checks_schedule.schedule(there, found)
    scheduled = isinstance(found, Installed) and bool(found.entries or found.units)
    yield checks_running.last_pass(there, scheduled=scheduled)


def _common(there: Site, directory: Check) -> Iterator[Check]:
    """What both look at."""
    yield directory
    yield checks_files.config(there)
    yield from provider(there)
    yield from container(there)
    yield checks_files.state(there)
    yield checks_files.orders(there)
    yield from checks_files.log(there)
    yield checks_running.lock(there)
    yield checks_running.proxy(there)
    yield from checks_running.running_demos(there)
    yield checks_files.cache(there)
    yield from checks_files.disk(there)
    yield from checks_files.tls(there)
    yield from checks_running.switch(there)
    yield checks_running.packages()


def _report(call: Invocation, path: Path) -> None:
    """For the ``doctor`` that started this one in cron's place: its output may go to a log file."""
    checks = _common(*site(call, checks_files.directory))
    write_atomic(path, json.dumps([check.document() for check in checks]))


def _print(call: Invocation, checks: list[Check]) -> None:
    for check in checks:
        call.console.print(f"{check.status:<8}", style=_STYLES[check.status], end=" ")
        call.say(f"{check.name:<11} {check.found}")
        if check.mend:
            call.say(f"{'':<20} mend: {check.mend}")
    count = {status: sum(check.status is status for check in checks) for status in Status}
    call.say(
        f"\n{count[Status.PROBLEM]} problem(s), {count[Status.WARNING]} warning(s), {count[Status.OK]} ok"
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)
    parser.add_argument(
        "--as-cron", action="store_true", help="look at it as the scheduled pass will: no exported variables"
    )
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)


COMMAND = Command("doctor", "look for whatever keeps passes from working, and name the mend", run, _arguments)
