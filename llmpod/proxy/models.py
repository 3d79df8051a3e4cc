"""Not the model server's list: what ``/v1/models`` says of our models, alone or beside the server's own words. Pure.

An entry has OpenAI's fields and some more: ``status`` (the phase), ``max_model_len`` (as vLLM names it, when the
configuration sets it), ``usd_per_hour``, ``aliases`` and ``deadline``. What the server says itself is never changed.
"""

import json
from collections.abc import Iterable
from typing import Any, ClassVar, Final
from urllib.parse import unquote

from llmpod.errors import LlmpodError
from llmpod.proxy.route import Destination

PATH: Final = "/v1/models"
LONGEST_NAME: Final = 200  # of what a client sent, in our words about it


class NoSuchModel(LlmpodError):
    """No model of that name is known here."""

    status: ClassVar[int] = 404
    type: ClassVar[str] = "invalid_request_error"
    code: ClassVar[str] = "model_not_found"


def no_such_model(name: str, destinations: Iterable[Destination]) -> NoSuchModel:
    """For a request that names what nobody serves: with every name that there is."""
    known = dict.fromkeys(known for destination in destinations for known in destination.names)
    shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    return NoSuchModel(
        f"There is no model {shown!r} here.", hint=f"There are: {', '.join(known)}.", param="model"
    )


def names_one(path: str) -> str | None:
    """The model that ``/v1/models/NAME`` asks for; None for other paths. Names of models hold slashes."""
    return unquote(path[len(PATH) + 1 :]) or None if path.startswith(f"{PATH}/") else None


def listed(destinations: Iterable[Destination], *, now: float) -> bytes:
    """The list while nothing runs: what would answer if it did. ``now``: seconds since the epoch."""
    return _document([_entry(d, now) for d in destinations if d.names])


def merged(server: bytes, destinations: Iterable[Destination], *, now: float) -> bytes:
    """The server's list with what we know added to it; its own bytes when it is no list."""
    try:
        document = json.loads(server)
        own = {entry["id"]: entry for entry in document["data"]}
    except (ValueError, RecursionError, KeyError, TypeError):
        return server
    entries: list[Any] = list(document["data"])
    for destination in destinations:
        known = [own[name] for name in destination.names if name in own]
        for entry in known:
            for name, value in _ours(destination, entry["id"]).items():
                entry.setdefault(name, value)
        if destination.names and not known:
            entries.append(_entry(destination, now))
    return json.dumps({**document, "data": entries}).encode()


def picked(listing: bytes, name: str) -> bytes:
    """One entry of a list, by its id or an alias. Raises NoSuchModel."""
    try:
        entries = json.loads(listing)["data"]
        found = [entry for entry in entries if name == entry["id"] or name in entry.get("aliases", ())]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        found = []
    if not found:
        raise NoSuchModel(f"There is no model {name!r} here.", hint=f"GET {PATH} lists those there are.")
    return json.dumps(found[0]).encode()


def _document(entries: list[dict[str, Any]]) -> bytes:
    return json.dumps({"object": "list", "data": entries}).encode()


def _entry(destination: Destination, now: float) -> dict[str, Any]:
    name = destination.names[0]
    created = int(destination.created_at or now)
    base = {"id": name, "object": "model", "created": created, "owned_by": "llmpod"}
    return {**base, "root": destination.own_id, **_ours(destination, name)}


def _ours(destination: Destination, name: str) -> dict[str, Any]:
    """The fields that only we know, without those that are unknown."""
    fields = {
        "status": None if destination.phase is None else str(destination.phase),
        "max_model_len": destination.max_model_len,
        "usd_per_hour": destination.usd_per_hour,
        "deadline": destination.deadline,
    }
    aliases = [other for other in destination.names if other != name]
    return {"aliases": aliases, **{key: value for key, value in fields.items() if value is not None}}
