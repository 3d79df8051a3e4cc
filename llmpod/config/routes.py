"""Not a router: what the proxy is told of each model's ways in, and what is made of requests on them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from llmpod.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Route:
    """One model, as requests find it.

    Args:
        model_key: its name in the configuration.
        model: its Hugging Face id.
        names: what clients may send as ``model``.
        path: its own address before ``/v1``; empty: none.
        identity: stands for it in cache keys before it was ever started.
        max_model_len: its context length, if that is configured.
        served: the name that its server knows; empty: nobody knows.
        open: its server may know more names, so one that nobody knows is for it.
        defaults: fields that a request gets if it has none.
        set: fields that every request gets.
        strip: fields that no request keeps.
        system_prompt: for chats without a system message; empty: none.
    """

    model_key: str
    model: str
    names: tuple[str, ...]
    path: str = ""
    identity: str = ""
    max_model_len: int | None = None
    served: str = ""
    open: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)
    strip: tuple[str, ...] = ()
    system_prompt: str = ""

    @property
    def filters(self) -> bool:
        """Whether something is made of requests."""
        return bool(self.defaults or self.set or self.strip or self.system_prompt)


def routes_text(routes: tuple[Route, ...]) -> str:
    """As ``read_routes`` takes it."""
    return json.dumps([asdict(route) for route in routes], sort_keys=True)


def read_routes(name: str, text: str) -> tuple[Route, ...]:
    """A JSON list of :class:`Route`, the default one first. Raises ConfigError."""
    try:
        return tuple(
            Route(**{**fields, "names": tuple(fields["names"]), "strip": tuple(fields["strip"])})
            for fields in json.loads(text)
        )
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{name} is not what the manager writes there.", param=name) from None
