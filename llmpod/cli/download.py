"""Not a part of any start: the command ``download``, which fetches models before their servers look for them.

It writes the cache that those servers read, says beforehand whether the disk has room, and can be interrupted at any
time: the same command goes on where it was.
"""

import argparse
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from llmpod.backends.hub import Hub
from llmpod.backends.hub_cache import HubCache
from llmpod.backends.hub_download import Download
from llmpod.backends.hub_files import needed, snapshot
from llmpod.cli.command import Command, Invocation
from llmpod.cli.download_place import place_of
from llmpod.cli.switch import named
from llmpod.config import Config, PodConfig
from llmpod.errors import BadSpec, StateError
from llmpod.text import duration

RESERVE_BYTES = 512 * 2**20  # a disk that is full to the last byte is everybody's trouble
LINE_SECONDS = 10.0
_MEAN_SECONDS = 30.0


def run(call: Invocation) -> int:
    """Each model in turn; what cannot be fetched from here is said, and is an error only where it was asked for.

    Raises:
        LlmpodError: a model cannot be had, or there is no room for it.
    """
    config, options = call.config(), call.options
    meant = [named(config, name) for name in options.model] or list(config.models)
    todo = dict[str, Path]()
    for name in meant:
        try:
            todo[name] = options.cache_dir or place_of(config, config.models[name], call.environ)
        except BadSpec as e:
            if options.model:
                raise
            call.say(f"{name}: {e}")
    try:
        for name, place in todo.items():
            _download(call, config, config.models[name], place=place)
    except KeyboardInterrupt:
        call.say("Interrupted. What has come stays; the same command goes on from there.")
        return 128 + signal.SIGINT
    return 0


def _download(call: Invocation, config: Config, model: PodConfig, *, place: Path) -> None:
    repo_id, _, revision = model.hub_id.partition("@")
    call.veil.learn(model.hf_token)
    with closing(Hub(config.common.hub_url, model.hf_token)) as hub:
        whole = snapshot(repo_id, hub.page(repo_id, revision))
        files = needed(whole, call.options.include)
        cache = HubCache(place, repo_id)
        download = Download(hub.http, cache, whole, files=files)
        call.say(
            f"{model.hub_id}: {len(files)} files, {size(download.total)}"
            + (f", of which {size(download.done)} are there" if download.done else "")
        )
        _check_room(cache, download.needed, place)
        if call.options.check:
            return
        with _Show(call.console, repo_id, download) as show:
            download.run(show.tell)
        try:
            cache.refer(whole, revision or "main")
        except OSError as e:
            raise StateError(f"Cannot write into {place}: {e.strerror}.") from None
    call.say(f"{model.hub_id} is in {cache.place(whole)}")


def _check_room(cache: HubCache, wanted: int, place: Path) -> None:
    """Raises StateError: it does not fit."""
    try:
        free = cache.free_bytes()
    except OSError as e:
        raise StateError(f"Cannot look at {place}: {e.strerror}.") from None
    if wanted and wanted + RESERVE_BYTES > free:
        raise StateError(
            f"{size(wanted)} are still to come and {place} has room for {size(max(free - RESERVE_BYTES, 0))}.",
            hint="Free the disk, or name another place with --cache-dir (and for the server with HF_HUB_CACHE).",
        )


class _Show:
    """How far a download is: a bar at a terminal, else a line now and then."""

    def __init__(self, console: Console, name: str, download: Download) -> None:
        self._download = download
        self._console = console
        self._name = name
        self._meter = Meter(download.total, download.done, time.monotonic())
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bar.start()
        self._task = self._bar.add_task(self._name, total=self._download.total, completed=self._download.done)
        return self

    def __exit__(self, *_: object) -> None:
        self.tell()
        self._bar.stop()

    def tell(self) -> None:
        """Now."""
        self._bar.update(self._task, completed=self._download.done)
        line = self._meter.line(self._download.done, time.monotonic())
        if line and not self._console.is_terminal:
            self._console.print(f"{self._name}: {line}", highlight=False, markup=False)


class Meter:
    """What to say of a download, and when: every ten seconds.

    Args:
        total: bytes.
        done: bytes that were there at the beginning.
        now: seconds that only move forward.
    """

    def __init__(self, total: int, done: int, now: float) -> None:
        self._total = total
        self._seen = [(now, done)]
        self._said = now

    def line(self, done: int, now: float) -> str:
        """How far it is, how fast, and how long it still takes at that pace; empty when it is too early for a line."""
        if now - self._said < LINE_SECONDS:
            return ""
        self._said = now
        self._seen = [(at, bytes_) for at, bytes_ in self._seen if now - at <= _MEAN_SECONDS] or self._seen[
            -1:
        ]
        at, before = self._seen[0]
        self._seen.append((now, done))
        rate = max(done - before, 0) / (now - at)
        share = f"{size(done)} of {size(self._total)} ({100 * done // max(self._total, 1)} %)"
        left = f", {duration((self._total - done) / rate)} left" if rate else ", nothing comes"
        return f"{share}, {size(round(rate))}/s{left}"


def size(count: int) -> str:
    """``15.2 GB``; powers of ten, as disks and networks are sold."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:  # what is rounded up to a thousand belongs to the next unit
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="*",
        help="its name in `models`, or an alias; all that can be fetched, if none is named",
    )
    parser.add_argument(
        "--cache-dir",
        type=_directory,
        metavar="DIR",
        help="this cache, instead of the one that the server reads",
    )
    parser.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="PATTERN",
        help="just the files like this ('*Q4_K_M*'), instead of what a server loads; more than once",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="say how much is still to come and whether it fits; fetch nothing",
    )


def _directory(text: str) -> Path:
    return Path(text).expanduser().absolute()


COMMAND = Command("download", "fetch the models' weights before their servers need them", run, _arguments)
