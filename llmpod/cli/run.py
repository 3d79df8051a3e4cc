"""Not a daemon: ``run`` is the main job in the foreground, from nothing to a first answer, until Ctrl-C.

With a RunPod key and a configuration it is the real thing, after a priced plan and a yes. Without a key it is
the demo: the same manager and proxy against the bundled simulator, free and on this machine only.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from llmpod import config as configuration
from llmpod.cli import demos
from llmpod.cli.ask import ask, await_proxy, name_of
from llmpod.cli.choice import for_a_run, leave_to_requests, running
from llmpod.cli.cleanup import end_all, end_own
from llmpod.cli.command import Command, Invocation, port
from llmpod.cli.endings import Endings, Stop
from llmpod.cli.follow import LOCK_SECONDS, Follower
from llmpod.cli.heir import DEMO as DEMO_HEIR
from llmpod.cli.heir import heir
from llmpod.cli.plan import print_plans
from llmpod.cli.wiring import Plane, open_plane, with_port
from llmpod.config import Config, PodConfig, reached_at
from llmpod.errors import Busy, ConfigError, Declined, ModelNotReady
from llmpod.lifecycle.ports import is_taken, taken
from llmpod.lifecycle.wish import OF_MACHINES
from llmpod.model import Direction, Phase, Record
from llmpod.secret import Secret
from llmpod.sim.launch import Simulator

QUESTION = "Say hello to a developer who has just started you."
WATCH_SECONDS = 15.0
_DEMO: Mapping[str, Any] = {
    "model": "demo/tiny-chat",
    "backend": "demo",
    "gpu_type_id": ["NVIDIA RTX A6000", "NVIDIA L4"],
    "initial_wait_seconds": 0,
    "poll_interval_seconds": 0.5,
    "create_grace_seconds": 2,
    "cache_dir": demos.CACHE,
}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said: ``yes`` answers the question, ``port`` moves the proxy."""

    yes: bool
    port: int | None
    verbose: bool
    demo: bool = False


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--port", type=port, metavar="N", help="the proxy's port instead of the configured one"
    )


def _command(call: Invocation, *, demo: bool) -> int:
    options = Options(call.options.yes, call.options.port, call.verbose, demo)
    return run(call.config_path, options, call.environ, call.console)


RUN = Command(
    "run",
    "start everything, answer a first question, stay until Ctrl-C, clean up (demo without a key)",
    lambda call: _command(call, demo=False),
    _arguments,
)
DEMO = Command(
    "demo",
    "the same against the bundled simulator: no account, no GPU, no cost",
    lambda call: _command(call, demo=True),
    _arguments,
)


def run(path: Path, options: Options, environ: Mapping[str, str], console: Console) -> int:
    """The main job; returns the exit code.

    Raises:
        LlmpodError: it cannot start; whatever had been started is cleaned up.
    """
    endings = Endings()
    try:
        with ExitStack() as stack:
            return _run(path, options, environ, console=console, endings=endings, stack=stack)
    except Stop:  # before anything of ours existed
        return 130


def _run(
    path: Path,
    options: Options,
    environ: Mapping[str, str],
    *,
    console: Console,
    endings: Endings,
    stack: ExitStack,
) -> int:
    if not options.demo and (configuration.has_runpod_key(environ) or _needs_no_key(path, environ)):
        config = configuration.load(path, environ)
        key = configuration.provider_key(config.backends, environ)
    else:
        demo_host, demo_port = (PodConfig.model_fields[name].default for name in ("proxy_host", "proxy_port"))
        _check_port(path, demo_host, options.port or demo_port)
        config, key = stack.enter_context(
            _demo(path, environ, console, why="" if options.demo else "No RUNPOD_API_KEY found: ")
        )
    if options.port:
        config = with_port(config, options.port)
    plane = stack.enter_context(open_plane(config, key, environ=environ))
    if plane.proxy is not None and not plane.proxy.exists:
        _check_port(path, reached_at(config.common.proxy_host), plane.proxy.port)
    _agree(plane, options, console)
    before, chosen = running(plane), for_a_run(plane)
    try:
        _bring_up(plane, chosen, options, console)
        before = []  # from here on all of it is this run's
        return _watch(plane, options, console)
    except Stop:
        before = []
        return 0
    finally:
        endings.disarm()
        if before:
            begun = [name for name in chosen if name not in before]
            end_own(plane, console, endings=endings, begun=begun, before=before)
        else:
            end_all(plane, console, endings=endings, verbose=options.verbose)


def _needs_no_key(path: Path, environ: Mapping[str, str]) -> bool:
    """Whether the configuration is for a backend that can be used at once; a broken one is told by who needs it."""
    try:
        return not configuration.needs_key(configuration.load(path, environ).common.backend)
    except ConfigError:
        return False


def _check_port(path: Path, host: str, port: int) -> None:
    """Before anything is shown, asked or started. Raises PortTaken: somebody listens there already."""
    if not is_taken(host, port):
        return
    demo = next((demo for demo in demos.running(path) if demo.port == port), None)
    raise taken(port, f"a demo, which {demo}" if demo else "")


@contextmanager
def _demo(
    path: Path, environ: Mapping[str, str], console: Console, *, why: str
) -> Iterator[tuple[Config, Secret]]:
    """The simulator and a configuration for it, in a directory that is removed at the end."""
    home = demos.make_home(path, os.getpid())
    console.print(
        f"{why}this is the [bold]demo[/bold]. A simulator on this machine plays RunPod and the GPU;\n"
        "it costs nothing, and its answers are made up. With a key, `run` starts the real thing.",
        highlight=False,
    )
    with heir(DEMO_HEIR, home, environ=environ), Simulator.start() as simulator:
        raw = {
            **_DEMO,
            "runpod_api_url": simulator.api_url,
            "hub_url": simulator.hub_url,
            "runpod_proxy_url": simulator.proxy_url,
            "state_file": str(home / demos.STATE_FILE),
        }
        try:
            yield (
                configuration.parse(raw, path=home / "pod_config.json", environ={}),
                Secret(simulator.key, "the simulator"),
            )
        finally:
            demos.remove_home(home)


def _agree(plane: Plane, options: Options, console: Console) -> None:
    """Show what it will cost and ask. The demo costs nothing and does not ask."""
    if plane.config.common.backend == "demo":
        return
    print_plans(plane, console, keep=True, verbose=options.verbose)
    if options.yes or not plane.config.common.is_billed:
        return
    if not console.is_terminal:
        raise Declined(
            "Not started: nobody is there to say yes.", hint="Use YES=1 (or --yes) to start without asking."
        )
    try:
        answer = input("Start it? (y/N) ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise Declined("Not started.")


def _bring_up(plane: Plane, chosen: Sequence[str], options: Options, console: Console) -> None:
    """Each of these answers once; the others start with requests. Raises LlmpodError: one does not."""
    follower = Follower(plane, console, verbose=options.verbose)
    plane.order(Direction.UP, by="run", reason="`run` in the foreground", proxy=True, models=chosen)
    leave_to_requests(plane, plane.config.models)
    for model in chosen:
        record = follower.until_ready(model)
        if record.phase is not Phase.READY:
            why = record.error or record.down_reason or f"it is {record.phase}"
            raise ModelNotReady(f"{model} did not become ready: {why}")
        _first_answer(plane, record.served_name, console)
    if others := [name for name in plane.config.models if name not in chosen]:
        text = f"{', '.join(others)}: {'start' if others[1:] else 'starts'} with the first request"
        console.print(text, highlight=False, markup=False)
    _explain(plane, console)


def _first_answer(plane: Plane, served: str, console: Console) -> None:
    """The proof of the whole chain: one question through the proxy, as a client would ask it."""
    await_proxy(plane)
    model = name_of(plane, served)
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 200}
    document = ask(plane, "/v1/chat/completions", body)
    message = document["choices"][0]["message"]
    console.print("[green]ready, here is your first answer[/green]", highlight=False)
    console.print(f"  > {QUESTION}", markup=False, highlight=False)
    console.print(
        f"  {message.get('content') or message.get('reasoning_content') or ''}", markup=False, highlight=False
    )


def _explain(plane: Plane, console: Console) -> None:
    proxy = plane.proxy
    if proxy is None:
        return
    console.print(
        f"\nPoint your editor or SDK at   [bold]{proxy.url}/v1[/bold]   (any API key)\n"
        f"Live page                     {proxy.url}/dashboard\n"
        f"Log                           {plane.store.log_file}\n"
        "Ctrl-C stops the proxy and the model.",
        highlight=False,
    )


def _watch(
    plane: Plane, options: Options, console: Console, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Passes as cron would run them, saying only what changed, until the run's time is over."""
    before = dict(plane.store.load().records)
    while True:
        sleep(WATCH_SECONDS)
        try:
            report = plane.run_pass(wait_seconds=LOCK_SECONDS)
        except Busy:
            continue
        records = dict(plane.store.load().records)
        changed = any(records[m].phase is not before[m].phase for m in before)
        if changed or options.verbose or report.error:
            for line in report.lines:
                console.print(f"  {line}", highlight=False, markup=False)
        before = records
        if _is_over(plane, records):
            console.print(
                f"The run is over: {next(iter(records.values())).down_reason}", highlight=False, markup=False
            )
            return 0


def _is_over(plane: Plane, records: Mapping[str, Record]) -> bool:
    """Whether all are down for good; what only waits for a request is not."""
    orders, models = plane.store.orders(), plane.config.models
    return all(
        record.phase is Phase.STOPPED
        and record.down_reason
        and not (name in models and models[name].on_request and orders[name].by in OF_MACHINES)
        for name, record in records.items()
    )
