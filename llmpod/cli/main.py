"""Not the lifecycle: reads the command line of ``manage_pod.py`` and calls the command it names.

Exit codes: 0 done (also when another pass is at work), 1 failed, 2 usage, 69 and 75 provider or temporary trouble,
76 no money, 77 bad key, 78 bad configuration or state, 98 port taken, 130 interrupted.
"""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from llmpod import __version__, config
from llmpod.backends import runpod_catalog
from llmpod.backends.runpod_pod import RunpodPods
from llmpod.cli import show
from llmpod.cli.catalog import current_catalog, refresh
from llmpod.cli.follow import Follower
from llmpod.cli.run import Options, run
from llmpod.cli.wiring import HOME, Plane, interactive, open_plane
from llmpod.config import Config, Secret
from llmpod.errors import Busy, ConfigError, LlmpodError, StateError
from llmpod.lifecycle.act import Report
from llmpod.lifecycle.reconcile import PROXY
from llmpod.model import Direction, Phase

SHUTDOWN_SECONDS = 300.0
COMMANDS = {
    "pass": "one watchdog pass (the default); by hand it also follows the start until the model is ready",
    "up": "order the model up, for a new run, and follow its start",
    "down": "order the model down and see the pod gone; the proxy goes on serving its cache",
    "status": "what runs, why, until when, at what cost",
    "plan": "the priced candidates and what a pass would do",
    "run": "start everything, answer a first question, stay until Ctrl-C, clean up (demo without a key)",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="manage_pod.py",
        description="Keeps a private GPU model server running exactly while it is wanted.",
        epilog="commands:\n" + "\n".join(f"  {name:8} {text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("command", nargs="?", default="pass", metavar="COMMAND", help="see below")
    p.add_argument("--shutdown", action="store_true", help="terminate the pod(s), stop the proxy; sticky")
    p.add_argument(
        "--dry-run", action="store_true", help="print what a pass would do, with prices; change nothing"
    )
    p.add_argument("--verbose", action="store_true", help="tell every step")
    p.add_argument(
        "--refresh-catalog", action="store_true", help="fetch GPU types, prices, stock; check the config"
    )
    p.add_argument("--config", type=Path, default=HOME / "pod_config.json", help="default: %(default)s")
    p.add_argument("--json", action="store_true", help="status: machine-readable")
    p.add_argument("--yes", action="store_true", help="run: do not ask")
    p.add_argument(
        "--port", type=_port, metavar="N", help="run: the proxy's port instead of the configured one"
    )
    p.add_argument("--no-proxy", action="store_true", help="leave the proxy alone; somebody else runs it")
    p.add_argument("--version", action="version", version=f"llmpod {__version__}")
    return p


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port between 1 and 65535")
    return int(text)


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command; errors become one readable line on stderr and an exit code."""
    options = parser().parse_args(argv)
    environ = config.environment() if environ is None else environ
    try:
        if options.command not in COMMANDS:
            near = difflib.get_close_matches(options.command, COMMANDS, n=1)
            parser().error(
                f"unknown command {options.command!r}" + (f"; did you mean {near[0]}?" if near else "")
            )
        return _dispatch(options, environ, Console(soft_wrap=True))
    except LlmpodError as e:
        Console(stderr=True, soft_wrap=True).print(f"manage_pod.py: {e}", highlight=False, markup=False)
        return e.exit_code
    except KeyboardInterrupt:
        Console(stderr=True).print(
            "interrupted; what was started goes on (see `status`, `down`)", highlight=False
        )
        return 130


def _dispatch(options: argparse.Namespace, environ: Mapping[str, str], console: Console) -> int:
    if options.command == "run":
        return run(options.config, Options(options.yes, options.port, options.verbose), environ, console)
    loaded = _configuration(options, environ, console)
    offline = options.command == "status"
    key = Secret("offline", "nowhere") if offline else config.runpod_key(environ)
    with open_plane(loaded, key, environ=environ, with_proxy=not options.no_proxy) as plane:
        if offline:
            show.print_status(plane, console, as_json=options.json)
            return 0
        if options.refresh_catalog and isinstance(plane.backend, RunpodPods):
            return refresh(plane, plane.backend, console, verbose=options.verbose)
        if options.dry_run or options.command == "plan":
            return _plan(plane, console)
        if options.shutdown or options.command == "down":
            return _down(plane, console, everything=options.shutdown, verbose=options.verbose)
        return _up(plane, console, ordered=options.command == "up", verbose=options.verbose)


def _configuration(options: argparse.Namespace, environ: Mapping[str, str], console: Console) -> Config:
    """The configuration; a wrong one does not keep ``--shutdown`` and ``down`` from ending what runs."""
    try:
        return config.load(options.config, environ)
    except ConfigError as e:
        if not (options.shutdown or options.command == "down"):
            raise
        console.print(f"{e}\nShutting down with what can be read of it.", highlight=False, markup=False)
        return config.salvage(options.config, environ)


def _plan(plane: Plane, console: Console) -> int:
    """Reading calls only."""
    if isinstance(plane.backend, RunpodPods):
        catalog, origin = current_catalog(plane, plane.backend, keep=False)
        common = plane.config.common
        console.print(f"Prices from {origin}.", highlight=False)
        console.print(show.plan_table(runpod_catalog.offers(common, catalog), common.runtime_seconds))
    for model, step, seen in plane.reconciler().preview():
        there = f" (pod {seen.id}, {show.dollars(seen.usd_per_hour)}/h)" if seen else ""
        act = step.act.name.lower()
        console.print(f"{model}: would {act}{there}: {step.why}", highlight=False, markup=False)
    return 0


def _down(plane: Plane, console: Console, *, everything: bool, verbose: bool) -> int:
    """The order is durable before anything else; then passes until the provider's list is empty of ours."""
    by = "--shutdown" if everything else "down"
    forced = plane.order(Direction.DOWN, by=by, reason="ordered by hand", proxy=everything)
    if forced:
        console.print("The order cannot be written down (disk full?): keep cron from running until it can.")
    follower = Follower(plane, console, verbose=verbose)
    if follower.until_gone(limit_seconds=SHUTDOWN_SECONDS, forced=forced):
        stopped = ", the proxy is stopped" if everything and plane.proxy else ""
        console.print(f"down: no pod of this installation exists{stopped}", highlight=False)
        return 0
    console.print(
        "The order stands, but the pod's end is not confirmed yet. Run the command again.", highlight=False
    )
    return 75


def _up(plane: Plane, console: Console, *, ordered: bool, verbose: bool) -> int:
    """A pass. Only a person or ``up`` turns a sticky "down" round; cron never does."""
    by_hand = interactive()
    if ordered:
        plane.order(Direction.UP, by="up", reason="ordered by hand", proxy=True)
    elif by_hand:
        _rearm(plane)
    if not by_hand:
        return _one_pass(plane, console, verbose=verbose)
    follower = Follower(plane, console, verbose=verbose)
    for model in plane.config.models:
        record = follower.until_ready(model)
        if record.phase is not Phase.READY:
            raise LlmpodError(f"{model} is {record.phase}: {record.error or record.down_reason}")
    show.print_status(plane, console, as_json=False)
    return 0


def _rearm(plane: Plane) -> None:
    """A person who starts a pass at a terminal wants the model up; one that is up already keeps its deadline."""
    orders, records = plane.store.orders(), plane.store.load().records
    names = (*plane.config.models, PROXY)
    gave_up = any(record.phase is Phase.FAILED for record in records.values())
    if gave_up or any(name not in orders or orders[name].direction is Direction.DOWN for name in names):
        plane.order(Direction.UP, by="a person at the terminal", reason="pass by hand", proxy=True)


def _one_pass(plane: Plane, console: Console, *, verbose: bool) -> int:
    """What cron runs: one line, or every step with ``--verbose``."""
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
