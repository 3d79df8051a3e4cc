"""JSON, event streams and refusals as the real server writes them. Not the endpoints."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"


class Refusal(Exception):
    """A request that is answered with an error body."""

    def __init__(
        self, status: int, message: str, *, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


class Json(Response):
    """A JSON body in the real server's spelling: no spaces, characters as they are."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return packed(content)


class EventStream:
    """Server-sent events. The status line leaves at once, as from the real server, long before the first event."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the ASGI signature
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        async with aclosing(self._events) as events:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def packed(value: object) -> bytes:
    """A value as JSON. A lone surrogate, which a request may hold, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def event(value: Mapping[str, Any]) -> bytes:
    """One event without a name, as the OpenAI endpoints send them."""
    return b"data: " + packed(value) + b"\n\n"


def named_event(value: Mapping[str, Any]) -> bytes:
    """One event with the name that its field `type` says, as /v1/responses and /v1/messages send them."""
    return f"event: {value['type']}\n".encode() + event(value)
