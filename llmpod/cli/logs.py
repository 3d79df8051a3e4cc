"""Not a log store: ``logs`` shows what the pod or the proxy says, from its past on, with secrets masked."""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NoReturn

from llmpod.backends.runpod_api import RunpodApi
from llmpod.backends.runpod_logs import MOST_LINES, SOURCES, Line, PodLog
from llmpod.backends.runpod_pod import RunpodPods
from llmpod.backends.several import Several
from llmpod.cli.command import Command, Invocation
from llmpod.cli.levels import Offered
from llmpod.cli.logs_local import local_log
from llmpod.cli.switch import named
from llmpod.cli.tailing import Tail
from llmpod.cli.wiring import Plane
from llmpod.errors import LlmpodError, NotFound, ProviderUnavailable
from llmpod.lifecycle.lastwords import LastWords
from llmpod.lifecycle.store import Store
from llmpod.model import Record
from llmpod.text import one_line
from llmpod.veil import Veil

LOOK_SECONDS = 15.0  # a silent pod is left so often, to see whether it is still the one
PAUSE_SECONDS = 5.0
STATE_SECONDS = 1.0
FILE_SECONDS = 0.3
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        choices=Offered(("pod", "proxy")),
        metavar="WHAT",
        default="pod",
        help="pod (default), proxy, or of several models one, by name or alias",
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until Ctrl-C, also with the next pod"
    )
    parser.add_argument(
        "--source", choices=(*SOURCES, "all"), default="all", help="which of the pod's logs (default: all)"
    )
    parser.add_argument("--tail", type=_count, default=100, metavar="N", help="past lines (default: 100)")
    parser.add_argument(
        "--since", type=_since, metavar="WHEN", help="instead of --tail: 10m, 2h, 1d or an RFC 3339 time"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_LINES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {MOST_LINES}")
    return int(text)


def _since(text: str) -> str:
    """An RFC 3339 time in UTC."""
    try:
        if found := re.fullmatch(r"(\d{1,6})([smhd])", text):
            moment = datetime.fromtimestamp(time.time() - int(found[1]) * _UNITS[found[2]], UTC)
        else:
            moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither like 10m, 2h, 1d nor a time like 2026-11-21T08:00:00Z"
        ) from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asked for. ``source`` None: all; ``since`` an RFC 3339 time."""

    follow: bool
    source: str | None
    tail: int
    since: str | None


def logs(call: Invocation) -> int:
    """Print, and with ``-f`` go on until Ctrl-C."""
    o = call.options
    wanted = Wanted(o.follow, None if o.source == "all" else o.source, o.tail, o.since)
    try:
        if o.what == "proxy":
            return _proxy(Store(call.config().state_file).log_file, wanted, call.veil)
        with call.plane() as plane:
            models = tuple(plane.config.models) if o.what == "pod" else (named(plane.config, o.what),)
            pods = _pods_of(plane, models)
            if pods is not None:
                return _Pods(plane, pods.api, wanted, models).show()
            return local_log(plane, models, tail=wanted.tail, follow=wanted.follow)
    except KeyboardInterrupt:  # how a person ends it
        return 0
    except BrokenPipeError:  # `logs | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _pods_of(plane: Plane, models: Sequence[str]) -> RunpodPods | None:
    """Where the chosen models are rented; None: they run elsewhere."""
    backend: object = plane.backend
    if isinstance(backend, Several) and len(models) == 1:
        backend = backend.made_for(models[0])
    return backend if isinstance(backend, RunpodPods) else None


def _proxy(path: Path, wanted: Wanted, veil: Veil) -> int:
    try:
        opened = Tail(path)
    except FileNotFoundError:
        raise LlmpodError(f"The proxy has not written {path} yet.", hint="`up` starts it.") from None
    with opened as tail:
        past = tail.past(MOST_LINES if wanted.since else wanted.tail)
        for line in _proxy_since(past, wanted.since) if wanted.since else past:
            _print(veil.mask(line))
        while wanted.follow:
            for line in tail.more():
                _print(veil.mask(line))
            time.sleep(FILE_SECONDS)
    return 0


def _proxy_since(lines: list[str], since: str) -> Iterator[str]:
    """The proxy's lines are JSON with ``ts`` in the same form; one that is none goes with the line before it."""
    late = False
    for line in lines:
        if found := re.match(r'\{"ts": ?"([^"]+)"', line):
            late = found[1] >= since
        if late:
            yield line


class _Pods:
    """The log of the model's pod, and with ``-f`` of the pods after it.

    Args:
        plane: the control plane.
        api: RunPod.
        wanted: what to show.
        models: whose.
    """

    def __init__(self, plane: Plane, api: RunpodApi, wanted: Wanted, models: Sequence[str]) -> None:
        self._api = api
        self._store = plane.store
        self._models = models
        self._wanted = wanted

    def show(self) -> int:
        """Raises LlmpodError when there is no pod; it shows where the last one's lines are."""
        if self._wanted.follow:
            self._follow()
        if (record := self._record()) is None:
            raise self._no_pod("There is no pod now")
        try:
            self._print(record, self._open(record, self._wanted).past())
        except NotFound:
            raise self._no_pod(f"RunPod does not know pod {record.instance_id}") from None
        return 0

    def _follow(self) -> NoReturn:
        """Pod after pod. Of those that come later everything is shown, from their first line."""
        wanted, shown = self._wanted, ""
        while True:
            record = self._other_than(shown)
            shown = str(record.instance_id)
            _note(f"pod {shown} ({record.name})")
            self._follow_one(record, self._open(record, wanted))
            wanted = replace(wanted, tail=MOST_LINES, since=None)

    def _follow_one(self, record: Record, log: PodLog) -> None:
        """Until the manager knows of no pod or of another one."""
        read: Callable[[], Iterable[Line]] = log.past
        doubted = False
        while True:
            try:
                self._print(record, read())
                read, doubted = partial(log.more, quiet_seconds=LOOK_SECONDS), False
            except NotFound:
                if not doubted:
                    _note(f"RunPod does not know pod {record.instance_id} now")
                doubted = True
                time.sleep(PAUSE_SECONDS)
            except ProviderUnavailable as e:
                _note(e.message)
                time.sleep(e.retry_after or PAUSE_SECONDS)
            now = self._record()
            if now is None or now.instance_id != record.instance_id:
                return

    def _other_than(self, shown: str) -> Record:
        told = False
        while (record := self._record()) is None or record.instance_id == shown:
            if not told:
                _note("no pod now; waiting for the next one (Ctrl-C ends this)")
            told = True
            time.sleep(STATE_SECONDS)
        return record

    def _record(self) -> Record | None:
        records = self._store.load().records
        return next((records[m] for m in self._models if m in records and records[m].instance_id), None)

    def _open(self, record: Record, wanted: Wanted) -> PodLog:
        pod_id = str(record.instance_id)
        return PodLog(self._api, pod_id, source=wanted.source, tail=wanted.tail, since=wanted.since)

    def _print(self, record: Record, lines: Iterable[Line]) -> None:
        self._store.pod_key(record.name)  # so that the veil knows it
        for line in lines:
            at = re.sub(r"\.\d+", "", line.at) or "-"
            _print(f"{at} {line.source:<9} | {self._store.veil.mask(line.text)}")

    def _no_pod(self, why: str) -> LlmpodError:
        kept = LastWords.of(self._store.directory, self._store.veil)
        if not (text := kept.read()):
            return LlmpodError(f"{why}, and no start has failed yet.", hint="`up` starts one.")
        for line in text.splitlines():
            _print(self._store.veil.mask(line))
        return LlmpodError(f"{why}. The lines above are kept in {kept.path}.")


def _print(line: str) -> None:
    print(one_line(line.rstrip()), flush=True)


def _note(text: str) -> None:
    """About the lines, not one of them."""
    print(f"--- {text}", file=sys.stderr, flush=True)


COMMAND = Command("logs", "what the pod says (container and system), or the proxy", logs, _arguments)
