"""Not the timing of an answer (bench_run.py): stops a model and starts it again, to see how long a start takes.

A cold start has nothing at hand, a warm one what can be kept from one start to the next; what that is depends on where
the model runs. How long it took is what passes have measured, as for every start: from the creation to the first
answer. Whatever happens on the way, the model is wanted afterwards as it was before.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from llmpod.backends.hub_cache import HubCache
from llmpod.cli.command import Invocation
from llmpod.cli.download_place import place_of
from llmpod.cli.follow import Follower
from llmpod.cli.show import ALIVE
from llmpod.cli.switch import await_end, await_silence
from llmpod.cli.wiring import Plane
from llmpod.config import Config, PodConfig
from llmpod.errors import BadSpec, Declined, LlmpodError, ModelNotReady, NoCapacity
from llmpod.lifecycle.money import dollars, rate
from llmpod.lifecycle.wish import IDLE, REQUEST
from llmpod.model import Direction, Phase, Record, Want
from llmpod.text import duration

COLD, WARM = "cold", "warm"
BENCH = "bench"
_NO_PERSONS = frozenset({BENCH, IDLE, REQUEST})
SILENCE_SECONDS = 300.0
END_SECONDS = 300.0
_WEIGHTS_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Start:
    """One start: ``cold`` or ``warm``, what that means here, and the files that must leave memory for it."""

    kind: str
    means: str
    forgets: tuple[Path, ...] = ()


def starts(plane: Plane, name: str, environ: Mapping[str, str]) -> list[Start]:
    """Those that can be told apart for a model.

    Raises:
        BadSpec: nobody here starts it.
    """
    model = plane.config.models[name]
    if model.backend == "static":
        raise BadSpec("Somebody else runs this server, so its start cannot be timed.")
    if model.backend == "runpod_serverless":
        return [Start(COLD, "no worker is left before it")]
    if model.backend == "slurm":
        return [Start(WARM, "the node may have the weights in memory; its waiting for a place counts")]
    if not model.is_rented:
        weights = tuple(_weights(plane.config, model, environ)) if hasattr(os, "posix_fadvise") else ()
        warm = Start(WARM, "the weights are in memory, as far as they fit")
        return [Start(COLD, "the weights are read from the disk", weights), warm] if weights else [warm]
    if model.network_volume_id and plane.store.typical_start(model.hub_id.partition("@")[0]):
        return [Start(WARM, f"a new pod with the weights on the volume {model.network_volume_id}")]
    return [Start(COLD, "a new pod, which fetches image and weights")]


def _weights(config: Config, model: PodConfig, environ: Mapping[str, str]) -> Iterator[Path]:
    """The files of the model on this machine: in the hub's cache, and what the command names."""
    with suppress(BadSpec):
        yield from HubCache(place_of(config, model, environ), model.hub_id.partition("@")[0]).blobs()
    section = model.process
    cwd = (section.cwd if section else None) or config.path.parent
    named = [cwd / word for word in (section.command[1:] if section else ())]
    for path in named:
        inside = path.rglob("*") if path.is_dir() else [path]
        yield from (file for file in inside if file.is_file() and file.stat().st_size >= _WEIGHTS_BYTES)


def forget(files: Sequence[Path]) -> None:
    """Let the system drop from memory what it has read of these files; they stay on the disk.

    Source: posix_fadvise(2), POSIX_FADV_DONTNEED: clean pages that nobody has mapped are freed.
    """
    for file in files:
        with suppress(OSError), file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def agree(call: Invocation, plane: Plane, name: str, planned: Sequence[Start]) -> None:
    """Say what it costs, and ask where it costs anything.

    Raises:
        Declined: nobody said yes.
        NoCapacity: no machine can be had now.
    """
    model, many = plane.config.models[name], len(planned)
    say = call.say if not call.options.json else (lambda _: None)
    say(f"{name} is stopped and started {many} time{'s' if many > 1 else ''}: {_meanings(planned)}.")
    if not model.is_billed or model.backend == "demo":
        return
    price = _price(plane, name, many)
    say(price)
    if call.options.yes:
        return
    if call.options.json or not call.console.is_terminal:
        raise Declined(f"Not started: nobody is there to say yes. {price}", hint="Use --yes.")
    try:
        answer = input("Do it? (y/N) ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise Declined("Nothing was stopped or started.")


def _meanings(planned: Sequence[Start]) -> str:
    return ", then ".join(f"{start.kind} ({start.means})" for start in planned)


def _price(plane: Plane, name: str, many: int) -> str:
    """Raises NoCapacity."""
    model, state = plane.config.models[name], plane.store.load()
    if not model.is_rented:
        return "RunPod bills the worker by the second from its start on, loading included."
    offers = plane.drawer.draw(model, state.refused, latest=True).spec.offers
    if not offers:
        raise NoCapacity("No machine can be had for it now.", hint="`plan` says why. Nothing was stopped.")
    offer = offers[0]
    text = f"Each start is a new pod ({offer.count} x {offer.gpu}, {rate(offer.usd_per_hour)}), paid from its creation"
    typical = plane.store.typical_start(model.hub_id.partition("@")[0])
    if typical is None or offer.usd_per_hour is None:
        return (
            f"{text}; how long it loads is not known yet, {duration(model.startup_timeout_seconds)} at most."
        )
    cost = many * typical[0] * offer.usd_per_hour / 3600
    return f"{text}: about {duration(typical[0])}, so {dollars(cost)} until it answers, and then as any run."


@contextmanager
def restarted(
    call: Invocation, plane: Plane, name: str, planned: Sequence[Start]
) -> Iterator[Mapping[str, float]]:
    """The seconds of each planned start, by its kind; within it the model is ready.

    Raises:
        Busy: the model is at work for longer than we wait.
        ModelNotReady: it did not start.
    """
    was_up, before = plane.store.load().record(name).phase in ALIVE, plane.store.orders().get(name)
    console = Console(quiet=True) if call.options.json else call.console
    seconds = dict[str, float]()
    try:
        for start in planned:
            await_silence(plane, [name], SILENCE_SECONDS)
            _order(plane, name, Direction.DOWN)
            await_end(plane, [name], END_SECONDS)
            forget(start.forgets)
            _order(plane, name, Direction.UP)
            seconds[start.kind] = _until_ready(name, Follower(plane, console, verbose=call.verbose))
        yield seconds
    finally:
        _as_before(plane, name, before, was_up=was_up)


def _until_ready(name: str, follower: Follower) -> float:
    record = follower.until_ready(name)
    taken = start_seconds(record)
    if record.phase is not Phase.READY or taken is None:
        raise ModelNotReady(f"{name} did not start: {record.error or record.down_reason}")
    return taken


def start_seconds(record: Record) -> float | None:
    """How long a machine took from its creation to its first answer."""
    if record.created_at is None or record.ready_at is None:
        return None
    return round(record.ready_at - record.created_at, 1)


def _as_before(plane: Plane, name: str, before: Want | None, *, was_up: bool) -> None:
    """What ran goes on, what did not run ends, also where a start failed or somebody pressed Ctrl-C.

    The order from before stands again, by whom and why and until when; one that somebody else gave meanwhile stays.
    """
    order = plane.store.orders().get(name)
    if order is None or order.by not in _NO_PERSONS:
        return
    meant = replace(_meant(plane, name, before, was_up=was_up), heard=order.heard)
    if meant.direction is Direction.UP:  # what runs goes on; an order of another time would begin a new run
        meant = replace(meant, at=order.at if order.direction is Direction.UP else plane.clock())
    plane.store.order_instead({name: order}, {name: meant})
    if not was_up:
        with suppress(LlmpodError):  # the order stands; further passes carry it out
            await_end(plane, [name], END_SECONDS)


def _meant(plane: Plane, name: str, before: Want | None, *, was_up: bool) -> Want:
    """The order from before, or where it says something else than what was to be seen, one that says that."""
    direction = Direction.UP if was_up else Direction.DOWN
    if before is not None and before.direction is direction:
        return before
    by = IDLE if not was_up and plane.config.models[name].on_request else BENCH
    return Want(direction, at=plane.clock(), by=by, reason="as before a start was timed")


def _order(plane: Plane, name: str, direction: Direction) -> None:
    plane.order(direction, by=BENCH, reason="a start is timed", proxy=False, models=[name])
