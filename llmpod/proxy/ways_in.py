"""Not a connection: which of several models a request is for, and what is made of the request on its way. Pure.

By its path (``/NAME/v1/…``, of which the name is taken off), else by the body's ``model`` (names and aliases), else,
where it names none, the default. A name that nobody knows goes to the first model whose server may know more names
than we do; where there is none, it is refused, before anything is started or stopped for it.

Then the model's own rules: fields stripped, set, given where they are missing, a system prompt where there is none,
and the name that its server knows. A body that no rule touches stays as it is, to the byte; the cache's key is made of
what comes out.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from llmpod.cache.jsontext import NotJSON, read
from llmpod.config.routes import Route
from llmpod.errors import ModelNotReady, NotRouted
from llmpod.proxy.ask import Ask
from llmpod.proxy.headers import is_json
from llmpod.proxy.models import no_such_model
from llmpod.proxy.route import Destination, own_address

_SYSTEM: Final = ("system", "developer")


def find_way(ask: Ask, destinations: Sequence[Destination]) -> tuple[Ask, Destination]:
    """The request as its model gets it, and the model.

    Raises:
        NotRouted: no model has that address.
        NoSuchModel: no model has that name.
        ModelNotReady: none is known at all.
    """
    own = own_address(ask.path)
    if own:
        ask = replace(ask, path=ask.path[len(own) :], target=ask.target[len(own) :])
    body = _json(ask) if ask.method == "POST" else None
    destination = _at(own, destinations) if own else _named(body, destinations)
    if destination.route is None or body is None:
        return ask, destination
    before = json.dumps(body)
    changed = _filtered(body, destination.route, ask.path, own=bool(own))
    if json.dumps(changed) == before:
        return ask, destination
    return replace(ask, body=json.dumps(changed, ensure_ascii=False).encode(), key=None), destination


def _named(body: dict[str, Any] | None, destinations: Sequence[Destination]) -> Destination:
    named = body.get("model") if body is not None else None
    if not destinations:
        hint = "Start one: python3 manage_pod.py up"
        raise ModelNotReady("No model server is known.", hint=hint, retry_after=30)
    if not isinstance(named, str) or not named:
        return destinations[0]
    for destination in destinations:
        if named in destination.names:
            return destination
    for destination in destinations:
        if destination.takes(named):
            return destination
    raise no_such_model(named, destinations)


def _at(own: str, destinations: Sequence[Destination]) -> Destination:
    for destination in destinations:
        if destination.route is not None and destination.route.path == own:
            return destination
    known = [d.route.path for d in destinations if d.route is not None and d.route.path]
    raise NotRouted(
        f"No model has the address {own}.",
        hint=f"There are: {', '.join(known)}." if known else "Requests go to /v1.",
    )


def _json(ask: Ask) -> dict[str, Any] | None:
    """The body as a JSON object; None where it is none, which somebody else refuses."""
    if not is_json(ask.content_type.encode("latin-1")):
        return None
    try:
        body = read(ask.body)
    except NotJSON:
        return None
    return body if isinstance(body, dict) else None


def _filtered(body: dict[str, Any], route: Route, path: str, *, own: bool) -> dict[str, Any]:
    kept = {name: value for name, value in body.items() if name not in route.strip}
    made = {**route.defaults, **kept, **route.set}
    if route.served and ((own and not route.open) or made.get("model") in route.names):
        made["model"] = route.served
    if route.system_prompt and path.endswith("/chat/completions"):
        made = _prompted(made, route.system_prompt)
    return made


def _prompted(body: dict[str, Any], prompt: str) -> dict[str, Any]:
    messages = body.get("messages")
    if not isinstance(messages, list):
        return body
    if any(isinstance(message, dict) and message.get("role") in _SYSTEM for message in messages):
        return body
    return {**body, "messages": [{"role": "system", "content": prompt}, *messages]}
