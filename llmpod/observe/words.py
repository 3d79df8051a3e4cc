"""Not the log: its lines as a person reads them who sits in front of the proxy. Programs get the JSON."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from llmpod.text import one_line

_REQUEST: Final = ("method", "path", "status", "cache")  # said without their names, since anybody knows them


def in_words(block: bytes) -> bytes:
    """Complete lines of the log, each in words; what is no record of ours stays, made harmless for a terminal."""
    return b"".join(f"{_line(line)}\n".encode() for line in block.splitlines())


def _line(line: bytes) -> str:
    try:
        record = json.loads(line)
        at = datetime.fromisoformat(record.pop("ts")).astimezone()
        level, event = record.pop("level"), record.pop("event")
    except (ValueError, KeyError, TypeError, AttributeError):
        return one_line(line.decode(errors="replace"))
    loud = "" if level in ("info", "debug") else f"{level.upper()} "
    return one_line(f"{at:%H:%M:%S} {loud}{event.replace('_', ' ')}{_fields(event, record)}")


def _fields(event: str, record: Mapping[str, Any]) -> str:
    said = {name: value for name, value in record.items() if value not in (None, "")}
    bare = [said.pop(name) for name in _REQUEST if name in said] if event == "request" else []
    return "".join(
        [*(f" {value}" for value in bare), *(f"  {name}: {value}" for name, value in said.items())]
    )
