"""Not a load test: the command ``bench`` times one long answer and compares it with earlier ones of the same machine.

With ``--starts`` it stops and starts the model first (bench_starts.py). History is ``bench.jsonl`` beside the state,
one line a run.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from llmpod.cli.ask import await_proxy, name_of
from llmpod.cli.bench_run import Run, run_once
from llmpod.cli.bench_starts import COLD, WARM, agree, restarted, start_seconds, starts
from llmpod.cli.command import Command, Invocation, json_flag
from llmpod.cli.switch import named
from llmpod.cli.wiring import Plane
from llmpod.errors import ModelNotReady, StateError
from llmpod.lifecycle import files
from llmpod.model import Phase, Record
from llmpod.text import duration

FILE_NAME = "bench.jsonl"
LAST_RUNS = 9
_FIGURES = (
    ("tokens_per_second", "tokens a second", "{:.1f}"),
    ("first_token_seconds", "first token", "{:.3f} s"),
    ("seconds", "whole answer", "{:.1f} s"),
    ("start_seconds", "this start", "{:.1f} s"),
    ("cold_start_seconds", "cold start", "{:.1f} s"),
    ("warm_start_seconds", "warm start", "{:.1f} s"),
)
_LONG_SECONDS = 60.0
NOISE_SECONDS = 0.02


def run(call: Invocation) -> int:
    """Print the figures and what they were before.

    Raises:
        ModelNotReady: nothing runs that could be timed; without `--starts` a bench starts nothing.
        LlmpodError: there is no whole answer.
    """
    with call.plane(offline=not call.options.starts) as plane:
        name = _chosen(call, plane)
        with _started(call, plane, name) as timed:
            record = plane.store.load().record(name)
            if record.phase is not Phase.READY:
                raise ModelNotReady(f"{name} is not ready.", hint="`up` starts it, or `bench --starts`.")
            await_proxy(plane)
            measured = run_once(plane, name_of(plane, record.served_name), call.options.tokens)
        now = {**_document(plane, name, record, measured), **timed}
        before = earlier(plane.store.directory / FILE_NAME, now)
        _keep(call, plane.store.directory / FILE_NAME, now)
    comparison = compared(now, before)
    if call.options.json:
        print(json.dumps({"run": now, "earlier_runs": len(before), "compared": comparison}, indent=2))
    else:
        _print(call, now, comparison, len(before))
    return 0


def _chosen(call: Invocation, plane: Plane) -> str:
    """The model that is meant: the one that is named, else one that is ready, else the default one to be started."""
    if call.options.model:
        return named(plane.config, call.options.model)
    records = plane.store.load().records
    ready = next((n for n in plane.config.models if n in records and records[n].phase is Phase.READY), "")
    if not ready and not call.options.starts:
        raise ModelNotReady("No model is ready.", hint="`up` starts one; a bench starts nothing.")
    return ready or plane.config.default


@contextmanager
def _started(call: Invocation, plane: Plane, name: str) -> Iterator[Mapping[str, float | None]]:
    """The start times, as the history has them; without `--starts` nothing is stopped or started."""
    found = dict[str, float | None]({f"{kind}_start_seconds": None for kind in (COLD, WARM)})
    if not call.options.starts:
        yield found
        return
    planned = starts(plane, name, call.environ)
    agree(call, plane, name, planned)
    with restarted(call, plane, name, planned) as seconds:
        yield found | {f"{kind}_start_seconds": taken for kind, taken in seconds.items()}


def _document(plane: Plane, name: str, record: Record, measured: Run) -> dict[str, Any]:
    """A line of the history."""
    rate = measured.tokens_per_second
    return {
        "at": round(plane.clock(), 1),
        "backend": plane.config.models[name].backend,
        "model": record.model,
        "gpu": record.gpu,
        "tokens": measured.tokens,
        "counted": measured.counted,
        "seconds": round(measured.seconds, 4),
        "first_token_seconds": round(measured.first_token_seconds, 4),
        "tokens_per_second": round(rate, 2) if rate is not None else None,
        "start_seconds": start_seconds(record),
    }


def earlier(path: Path, now: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The last runs of the same model on the same machine and of about the same length; torn lines are skipped."""
    found = []
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, RecursionError):
                found.append(json.loads(line))
    same = ("backend", "model", "gpu")
    runs = [run for run in found if isinstance(run, dict) and all(run.get(key) == now[key] for key in same)]
    return [run for run in runs if _is_alike(run.get("tokens"), now["tokens"])][-LAST_RUNS:]


def _is_alike(one: object, other: int) -> bool:
    return isinstance(one, int) and 0.5 <= one / max(other, 1) <= 2


def compared(
    now: Mapping[str, Any], before: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float | None]]:
    """Each figure, its median before, and the change in percent; None where there is nothing to compare."""
    result = {}
    for key, _, _ in _FIGURES:
        alike = [run for run in before if key != "first_token_seconds" or _is_fresh(run) == _is_fresh(now)]
        values = [value for run in alike if isinstance(value := run.get(key), int | float)]
        usual, value = (median(values) if values else None), now.get(key)
        change = 100 * (value - usual) / usual if usual and value is not None else None
        result[key] = {"now": value, "before": usual, "change_percent": change}
    return result


def _is_fresh(run: Mapping[str, Any]) -> bool:
    """Whether it was the first answer of a server that had just started."""
    return "cold_start_seconds" in run or "warm_start_seconds" in run


def _keep(call: Invocation, path: Path, now: Mapping[str, Any]) -> None:
    try:
        files.append(path, json.dumps(now).encode() + b"\n")
    except (OSError, StateError) as e:
        call.say(f"Not kept in {path}: {e}")


def _print(call: Invocation, now: Mapping[str, Any], comparison: Mapping[str, Any], runs: int) -> None:
    how = "" if now["counted"] else " (pieces of the stream; the server tells no usage)"
    call.say(f"{now['model']} on {now['gpu']}: {now['tokens']} tokens{how}")
    for key, name, form in _FIGURES:
        figure = comparison[key]
        if figure["now"] is None:
            continue
        long = key.endswith("start_seconds") and figure["now"] >= _LONG_SECONDS
        shown = duration(figure["now"]) if long else form.format(figure["now"])
        past = ""
        if figure["change_percent"] is not None and not _is_noise(key, figure):
            past = f"   before {form.format(figure['before'])}, {figure['change_percent']:+.0f} %"
        call.say(f"  {name:<16} {shown}{past}")
    call.say(f"Compared with the median of {runs} earlier run(s)." if runs else "The first run of its kind.")


def _is_noise(key: str, figure: Mapping[str, Any]) -> bool:
    """Milliseconds more or less are the machine's."""
    return key.endswith("seconds") and abs(figure["now"] - figure["before"]) < NOISE_SECONDS


def _tokens(text: str) -> int:
    """An argument type: how long the answer may become."""
    if not text.isdecimal() or not 2 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 2 and 100000")
    return int(text)


def _arguments(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)
    parser.add_argument("model", nargs="?", help="of several: its name in `models`, or an alias")
    parser.add_argument(
        "--starts", action="store_true", help="stop and start the model first, and time that, cold and warm"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask where a start costs money")
    parser.add_argument(
        "--tokens", type=_tokens, default=1000, metavar="N", help="length of the answer (default: 1000)"
    )


COMMAND = Command("bench", "time one long answer, and compare it with earlier ones", run, _arguments)
