"""Not a part of any answer: what a client hears while a model server has not begun to answer.

Comments keep every connection alive, but some clients give up when no *event* comes for long, comments or not
(Qwen Code after 240 s, Codex after 300 s; measured, docs of clients' behaviour). They are known by their User-Agent
and get events that say nothing: a chunk with an empty delta, or the event that their API has for it. A client
that waits for one JSON document can be sent white space, which JSON allows before it (RFC 8259, 2); only by option,
since the status is then 200 before anybody knows it.
"""

import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from llmpod.cache.paths import Shape, shape_of
from llmpod.config import ProxySettings
from llmpod.proxy.ask import Ask
from llmpod.proxy.headers import NOSNIFF, Headers, get
from llmpod.proxy.replies import JSON_TYPE, SSE_TYPE, STREAM_FIELDS

COUNTS_EVENTS: Final = (b"qwencode/", b"codex")  # also codex_exec, codex_cli_rs, codex_vscode
COMMENT: Final = b": keepalive\n\n"
_SPACE: Final = b" "
_PING: Final = b'event: ping\ndata: {"type": "ping"}\n\n'  # Anthropic Messages, "ping events"
_RESPONSES_KEEPALIVE: Final = b'event: keepalive\ndata: {"type": "keepalive", "sequence_number": 0}\n\n'


class Beat(NamedTuple):
    """What is sent: header fields if it is the first thing to be sent, and the bytes."""

    fields: Headers
    data: bytes
    events: bool


class Keepalive:
    """Chooses the form for each client.

    Args:
        settings: which form streams get, and whether documents get white space.
        clock: seconds since the epoch, for ``created``.
    """

    def __init__(self, settings: ProxySettings, *, clock: Callable[[], float]) -> None:
        self._form = settings.keepalive_form
        self._spaces = settings.keepalive_json
        self._clock = clock

    def beat(self, ask: Ask, *, stream: bool, model: str) -> Beat | None:
        """What to send to the client now; None: nothing."""
        shape = shape_of(ask.path)
        unfit = shape is Shape.OPAQUE or (stream and shape is Shape.DOCUMENT)
        if unfit or ask.method != "POST" or not ask.chunks:  # without chunks a cut looks like an end
            return None
        if stream:
            data = self._event(shape, model) if self._wants_events(ask) else COMMENT
            return Beat([SSE_TYPE, NOSNIFF, *STREAM_FIELDS], data, events=True)
        return Beat([JSON_TYPE, NOSNIFF], _SPACE, events=False) if self._spaces else None

    def _wants_events(self, ask: Ask) -> bool:
        if self._form != "auto":
            return self._form == "event"
        return get(ask.headers, b"user-agent").lower().startswith(COUNTS_EVENTS)

    def _event(self, shape: Shape, model: str) -> bytes:
        if shape is Shape.RESPONSES:
            return _RESPONSES_KEEPALIVE
        if shape is Shape.MESSAGES:
            return _PING
        chat = shape is Shape.CHAT
        choice: dict[str, Any] = {"index": 0, **({"delta": {}} if chat else {"text": ""})}
        chunk = {
            "id": "keepalive",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": int(self._clock()),
            "model": model,
            "choices": [{**choice, "finish_reason": None}],
        }
        return b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode()
