"""Not the key: what does not count in it, and whose answers may be stored. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llmpod.cache.masks import MASKS
from llmpod.cache.paths import Shape

STORING: Final = ("always", "deterministic", "off")
EVERYWHERE: Final = "*"
# shapes whose answers are drawn by chance unless the request says otherwise; the others are computed
_SAMPLED: Final = frozenset({Shape.CHAT, Shape.TEXT, Shape.RESPONSES, Shape.MESSAGES})


@dataclass(frozen=True)
class KeyPolicy:
    """What counts, and what may be stored.

    Attributes:
        ignored: top-level members left out of the key. ``stream`` is only left out where one entry serves
            both forms (``paths.converts``).
        ignored_stream_options: members of ``stream_options`` left out; the rest of it counts.
        masks: names of the rules in ``masks.py`` that are on.
        shared: whose answers these are does not count: all callers share.
        storing: one of ``STORING`` by path without query, ``*`` for all others. ``deterministic``: only what is asked
            with ``temperature`` 0 or with a ``seed``, and what is not sampled at all (embeddings, tokenize, …).
    """

    ignored: frozenset[str] = frozenset(
        {
            "user",  # who asks, for abuse reports
            "safety_identifier",  # its successor
            "metadata",  # labels for the caller's own bookkeeping
            "client_metadata",  # Codex: differs with every run
            "store",  # whether the server keeps a copy; where it is true /responses is not cached at all
            "prompt_cache_key",  # a hint about where the server's prefix cache may be warm
            "prompt_cache_retention",
            "request_id",  # vLLM: becomes part of the answer's id, nothing else
            "priority",  # vLLM: place in the queue
        }
    )
    ignored_stream_options: frozenset[str] = frozenset({"include_usage"})
    masks: frozenset[str] = frozenset(MASKS)
    shared: bool = False
    storing: Mapping[str, str] = field(default_factory=dict)

    def refusal(self, path: str, shape: Shape, body: dict[str, Any]) -> str:
        """Why the answer to this may not be stored; empty when it may."""
        if not self.storing:
            return ""
        rule = self.storing.get(path.partition("?")[0]) or self.storing.get(EVERYWHERE, "always")
        if rule == "off":
            return "cache_policy is off"
        if rule == "deterministic" and shape in _SAMPLED and not is_deterministic(body):
            return "cache_policy is deterministic, and there is neither temperature 0 nor a seed"
        return ""


def is_deterministic(body: dict[str, Any]) -> bool:
    """Asked with ``temperature`` 0, or with a ``seed``: the same question is meant to get the same answer."""
    temperature = body.get("temperature")
    cold = isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature == 0
    return cold or (isinstance(body.get("seed"), int) and not isinstance(body.get("seed"), bool))


POLICY: Final = KeyPolicy()
