"""Not a store of prompts: remembers, in memory only, how the conversations of late began, most used first.

A conversation begins with its system messages and its tools; the model server keeps what it computed of them for the
next one that begins alike. The hot path leaves a body here and goes on; bodies are read later, in a thread.
"""

import json
from collections import deque
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from llmpod.cache.paths import Shape, shape_of
from llmpod.proxy.ask import Ask

WAITING: Final = 64  # bodies that are not read yet; under load a sample is as good as all
MAX_BODY: Final = 512 * 2**10
KNOWN: Final = 256
BYTES_A_TOKEN: Final = 4  # of English text and code, roughly; the bound need not be exact
_SYSTEM: Final = frozenset({"system", "developer"})
# what a chat template may put before the first message of the user
_KEPT: Final = ("model", "tools", "chat_template", "chat_template_kwargs", "documents")


@dataclass(slots=True)
class _Prefix:
    """``request``: the shortest question that begins like this, for one token of an answer."""

    request: dict[str, Any]
    tokens: int
    used: int = 1


class Prefixes:
    """What was used how often. One event loop notes; ``read`` may run in a thread, one at a time."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque(maxlen=WAITING)
        self._known: dict[bytes, _Prefix] = {}

    def note(self, ask: Ask) -> None:
        """A question goes to the model server."""
        if len(ask.body) <= MAX_BODY and shape_of(ask.path) is Shape.CHAT:
            self._waiting.append(ask.body)

    @property
    def noted(self) -> bool:
        """Something waits to be read."""
        return bool(self._waiting)

    def read(self) -> None:
        """Take in what was noted."""
        while self._waiting:
            prefix = _prefix(self._waiting.popleft())
            if prefix is None:
                continue
            name = sha256(json.dumps(prefix.request, sort_keys=True).encode()).digest()
            if (known := self._known.get(name)) is not None:
                known.used += 1
                continue
            if len(self._known) >= KNOWN:
                self._forget()
            self._known[name] = prefix

    def top(self, most: int, *, tokens: int) -> list[dict[str, Any]]:
        """Questions that warm the most used beginnings, most used first.

        Args:
            most: how many.
            tokens: what they may have together, as estimated from their length.
        """
        chosen: list[dict[str, Any]] = []
        for prefix in sorted(self._known.values(), key=lambda p: -p.used):
            if len(chosen) < most and prefix.tokens <= tokens:
                tokens -= prefix.tokens
                chosen.append(prefix.request)
        return chosen

    def _forget(self) -> None:
        """Make room: the least used half goes, and old fame fades."""
        ranked = sorted(self._known.items(), key=lambda item: -item[1].used)
        self._known = dict(ranked[: KNOWN // 2])
        for prefix in self._known.values():
            prefix.used = (prefix.used + 1) // 2


def _prefix(body: bytes) -> _Prefix | None:
    """How a conversation begins; None when it has no system message, or is none."""
    try:
        asked = json.loads(body)
        messages = asked["messages"]
        end = next((n for n, m in enumerate(messages) if m["role"] not in _SYSTEM), len(messages))
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    if not end:
        return None
    kept = {name: asked[name] for name in _KEPT if asked.get(name) is not None}
    beginning = [*messages[:end], {"role": "user", "content": "."}]
    request = {**kept, "messages": beginning, "max_tokens": 1}
    return _Prefix(request, len(json.dumps(request)) // BYTES_A_TOKEN)
