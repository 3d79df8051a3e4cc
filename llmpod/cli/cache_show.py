"""Not changes: ``cache ls|show|verify|stats``, for people and as JSON."""

import argparse
import json
import shlex
import sys
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmpod.cache import USES_SECONDS, Contents, Stored
from llmpod.cli import demos
from llmpod.cli.cache_place import Place, now
from llmpod.cli.command import WHOLE_LINES, Invocation
from llmpod.cli.show import moment
from llmpod.errors import LlmpodError
from llmpod.text import duration, one_line

KEY_DIGITS = 15
_SHOWN_CHARS = 4000


def document(stored: Stored, at: float) -> dict[str, Any]:
    """An entry without its contents. Field names are stable."""
    entry = stored.entry
    return {
        "key": stored.digest,
        "model": entry.model,
        "path": entry.path,
        "stream": entry.stream,
        "size_bytes": stored.size,
        "body_bytes": len(entry.body),
        "stored_at": entry.stored_at,
        "age_seconds": round(max(0.0, at - entry.stored_at), 3),
        "last_use": stored.last_use,
        "hits": stored.hits,
        "has_usage": entry.has_usage,
    }


def bytes_text(count: int) -> str:
    """``2048`` → ``2.0 KiB``."""
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"


# --- ls ------------------------------------------------------------------------------------------------------
def ls(call: Invocation) -> int:
    """List them. Raises StateError."""
    place, options = Place.of(call), call.options
    contents = place.contents()
    filtered = bool(options.model or options.path)
    read = contents.entries(last=0 if filtered else options.limit) if contents else ()
    found = [stored for stored in read if _is_wanted(stored, options)]
    found.reverse()
    shown = found[: options.limit or None]
    left = len(found if filtered or contents is None else contents) - len(shown)
    if options.json:
        print(json.dumps([document(stored, now()) for stored in shown], indent=2))
        return 0
    if not found:
        _say_empty(call, place, contents, filtered=filtered)
        return 0
    Console(soft_wrap=True, width=WHOLE_LINES).print(_table(shown))
    call.say(
        f"Hits and last use are as written down so far: up to {USES_SECONDS:.0f} s late while a proxy runs."
    )
    if left > 0:
        call.say(f"{left} more; --limit 0 lists all.")
    return 0


def _say_empty(call: Invocation, place: Place, contents: Contents | None, *, filtered: bool) -> None:
    """What was looked at, and where else there may be answers."""
    if contents is None:
        call.say(f"No answer is stored: {place.directory} does not exist yet.")
    elif filtered and len(contents):
        call.say(f"None of the {len(contents)} answers in {place.directory} is so.")
    else:
        call.say(f"No answer is stored in {place.directory}.")
    for demo in demos.running(call.config_path) if not place.named else ():
        call.say(
            f"Those of the demo that runs: `cache ls --dir {shlex.quote(str(demo.home / demos.CACHE))}`."
        )


def _is_wanted(stored: Stored, options: argparse.Namespace) -> bool:
    entry = stored.entry
    return options.model in (None, entry.model) and options.path in (None, entry.path)


def _table(found: list[Stored]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("key", "model", "path", "form"):
        table.add_column(name)
    for name in ("size", "age", "hits", "last use"):
        table.add_column(name, justify="right")
    at = now()
    for stored in found:
        entry = stored.entry
        cells = (
            *(
                stored.digest[:KEY_DIGITS],
                entry.model or "-",
                entry.path,
                "stream" if entry.stream else "json",
            ),
            *(
                bytes_text(stored.size),
                duration(at - entry.stored_at),
                str(stored.hits),
                moment(stored.last_use) if stored.hits else "-",
            ),
        )
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    return table


# --- show ----------------------------------------------------------------------------------------------------
def show(call: Invocation) -> int:
    """Show one. Raises StateError, LlmpodError."""
    stored = only(Place.of(call), call.options.key)
    entry = stored.entry
    if call.options.body:
        sys.stdout.buffer.write(entry.body)
        return 0
    request = entry.request.decode() if entry.request is not None else None
    if call.options.json:
        whole = document(stored, now()) | {
            "request": json.loads(request) if request else None,
            "content_type": entry.content_type,
            "body": entry.body.decode("utf-8", "backslashreplace"),
        }
        print(json.dumps(whole, indent=2, ensure_ascii=False))
        return 0
    for name, value in document(stored, now()).items():
        call.say(f"{name:14} {value}")
    call.say("\nrequest (as its key was made from it)")
    call.say(_pretty(request) if request else "  is not kept")
    call.say("\nbody")
    call.say(_pretty(entry.body.decode("utf-8", "backslashreplace")))
    return 0


def only(place: Place, prefix: str) -> Stored:
    """The one entry whose key begins so. Raises StateError, LlmpodError."""
    contents = place.contents()
    found = list(contents.entries(prefix)) if contents else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise LlmpodError(f"No stored answer has a key that begins with {prefix}.", hint="See `cache ls`.")
    raise LlmpodError(
        f"{len(found)} stored answers have keys that begin with {prefix}.", hint="Give more digits."
    )


def _pretty(text: str) -> str:
    """JSON in lines; anything else as it is; a terminal is spared what is very long and what would control it."""
    with suppress(ValueError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    lines = "\n".join(one_line(line) for line in text.splitlines())
    return lines if len(lines) <= _SHOWN_CHARS else f"{lines[:_SHOWN_CHARS]}\n… (--json or --body show all)"


# --- verify and stats ----------------------------------------------------------------------------------------
def verify(call: Invocation) -> int:
    """Check every record; 1 when some are damaged. Raises StateError."""
    place = Place.of(call)
    contents = place.contents()
    result = contents.verify() if contents else None
    damaged = result.damaged if result else []
    if call.options.json:
        rows = [{"key": key, "reason": reason} for key, reason in damaged]
        whole = {"entries": result.entries if result else 0, "damaged": rows}
        print(json.dumps(whole | {"lost_bytes": result.lost_bytes if result else 0}, indent=2))
        return 1 if damaged else 0
    call.say(f"{result.entries if result else 0} answers in {place.directory} are exactly what was stored.")
    for key, reason in damaged:
        call.say(f"damaged: {key}: {reason}")
    if damaged:
        call.say("Damaged ones are never served; `cache purge KEY` or their next use removes them.")
    if result and result.lost_bytes:
        call.say(f"{result.lost_bytes} bytes belong to no record (torn by a crash); tidying removes them.")
    return 1 if damaged else 0


def stats(call: Invocation) -> int:
    """Say how full it is. Raises StateError."""
    place = Place.of(call)
    contents, c = place.contents(), place.settings
    empty = dict.fromkeys(("entries", "size_bytes", "disk_bytes", "segments", "dead_bytes"), 0)
    whole = {
        "directory": str(place.directory),
        **(contents.stats() if contents else empty),
        "max_entries": c.max_cache_size,
        "max_bytes": c.max_cache_bytes,
        "ttl_seconds": place.ttl_seconds,
        "policy": dict(c.cache_policy),
        "masks": list(c.cache_masks),
        "mode": c.cache_mode,
    }
    if call.options.json:
        print(json.dumps(whole, indent=2))
        return 0
    for name, value in whole.items():
        call.say(f"{name:12} {_figure(name, value)}")
    return 0


def _figure(name: str, value: object) -> str:
    if isinstance(value, int):
        return bytes_text(value) if name.endswith("_bytes") else str(value)
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{path} {word}" for path, word in value.items())
    return "never expires" if value is None else str(value)
