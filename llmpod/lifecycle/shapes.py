"""Not the sending: an event in the words and the shape that each kind of webhook reads. Pure.

Sources: Slack's incoming webhooks (``text``, three escaped characters), Discord's "execute webhook" (``content`` of
at most 2000 characters, ``allowed_mentions``), docs.ntfy.sh/publish (headers Title, Priority, Tags; RFC 2047 allowed).
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from llmpod.lifecycle.events import Entry
from llmpod.model import EventKind

# Priority 1 (min) to 5 (max), and a tag that its apps show as a picture.
_NTFY: Mapping[EventKind, tuple[str, str]] = {
    EventKind.CREATED: ("3", "rocket"),
    EventKind.READY: ("3", "white_check_mark"),
    EventKind.EXPIRING: ("4", "hourglass_flowing_sand"),
    EventKind.TERMINATED: ("3", "checkered_flag"),
    EventKind.FAILED: ("4", "x"),
    EventKind.BUDGET: ("4", "moneybag"),
    EventKind.LEAK: ("5", "rotating_light"),
}


@dataclass(frozen=True, slots=True)
class Message:
    """One HTTP request body with its headers."""

    body: bytes
    headers: Mapping[str, str]


def message(entry: Entry, shape: str) -> Message:
    """An event in the shape that a service reads.

    Args:
        entry: the event.
        shape: ``json``, ``slack``, ``discord`` or ``ntfy``.
    """
    event = entry.event
    title = f"llmpod {event.model}: {event.kind}"
    if shape == "ntfy":
        priority, tag = _NTFY[event.kind]
        headers = {"Title": _header(title), "Priority": priority, "Tags": tag}
        return Message(event.text.encode(), {**headers, "Content-Type": "text/plain; charset=utf-8"})
    text = f"{title}: {event.text}"
    if shape == "slack":
        return _json({"text": _slack(text)})
    if shape == "discord":  # nothing in a text may call everybody
        return _json({"content": text[:2000], "allowed_mentions": {"parse": []}})
    at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="seconds")
    fields = {"kind": event.kind.value, "model": event.model, "text": event.text}
    return _json({"source": "llmpod", "id": entry.number, **fields, "at": at.replace("+00:00", "Z")})


def _json(document: Mapping[str, object]) -> Message:
    return Message(json.dumps(document).encode(), {"Content-Type": "application/json"})


def _slack(text: str) -> str:
    """Slack's three control characters; without this ``<!channel>`` would call everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _header(text: str) -> str:
    """A header's value is one line of ASCII; ntfy reads RFC 2047 for the rest."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if line.isascii() else f"=?UTF-8?B?{base64.b64encode(line.encode()).decode()}?="
