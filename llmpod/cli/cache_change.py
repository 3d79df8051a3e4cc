"""Not a look: ``cache purge|export|import``. Exports hold prompts and answers, so their files are private."""

import json
import os
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

from llmpod.cache import Entry, import_lines, purge
from llmpod.cli.cache_place import Place, now, read_input
from llmpod.cli.command import Invocation
from llmpod.errors import BadRequest, LlmpodError


def purge_entries(call: Invocation) -> int:
    """``cache purge``; 1 when a key was named and none is so. Raises BadRequest, StateError, Busy."""
    options, place = call.options, Place.of(call)
    named = bool(options.key or options.model or options.path or options.older_than is not None)
    if named == options.everything:
        raise BadRequest("Say which ones: KEY…, --model, --path, --older-than, or --all alone.")
    horizon = now() - options.older_than if options.older_than is not None else None

    def wanted(entry: Entry) -> bool:
        return (
            (not options.key or entry.key.hex().startswith(tuple(options.key)))
            and options.model in (None, entry.model)
            and options.path in (None, entry.path)
            and (horizon is None or entry.stored_at < horizon)
        )

    if options.preview:
        contents = place.contents()
        count = sum(wanted(stored.entry) for stored in (contents.entries() if contents else ()))
    else:
        count = purge(place.directory, None if options.everything else wanted) if place.exists else 0
    if options.json:
        print(json.dumps({"purged": count, "dry_run": options.preview}))
    else:
        call.say(f"{count} answers {'would be' if options.preview else 'are'} forgotten.")
    return int(bool(options.key) and not count)  # who names one means one that is there


def export(call: Invocation) -> int:
    """``cache export``. Raises StateError, LlmpodError."""
    place, name = Place.of(call), call.options.file
    contents = place.contents()
    if contents is None:
        raise LlmpodError(f"There is nothing to export: {place.directory} does not exist.")
    try:
        with (
            nullcontext(sys.stdout) if name == "-" else os.fdopen(_create(name), "w", encoding="utf-8") as out
        ):
            count = _written(contents.export(), out)
    except OSError as e:
        raise LlmpodError(f"Cannot write {name}: {e.strerror}.") from None
    if name != "-":
        call.say(f"{count - 1} answers are in {name}.")
    return 0


def _create(name: str) -> int:
    """A new file for its owner alone: an export that is there already is not overwritten."""
    return os.open(Path(name).expanduser(), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _written(lines: Iterable[str], out: TextIO) -> int:
    count = 0
    for line in lines:
        print(line, file=out)
        count += 1
    return count


def import_file(call: Invocation) -> int:
    """``cache import``. Raises StateError, Busy while a proxy writes to the directory."""
    place = Place.of(call)
    lines = read_input(call.options.file).rstrip("\n").split("\n")  # texts hold other ends of lines
    added, left = import_lines(place.directory, lines, max_bytes=place.settings.max_cache_bytes)
    if call.options.json:
        print(json.dumps({"added": added, "left": left}))
    else:
        call.say(f"{added} answers were added; {left} were there already or found no room.")
    return 0
