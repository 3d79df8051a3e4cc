"""Not a response library: one answer to one client over ASGI, and what was said about it for the journal."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from llmpod.errors import LlmpodError
from llmpod.proxy.headers import Headers
from llmpod.proxy.line import Line
from llmpod.proxy.replies import error_body, error_event, error_headers

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Answer:
    """Sends one answer. A client that left is no error: bytes to it are dropped.

    Attributes:
        cache: ``HIT``, ``MISS``, ``JOIN``, ``BYPASS`` or empty; sent as ``X-Cache``.
        reason: why; sent as ``X-Cache-Reason``.
        events: the body is a stream of events, so an error can be said after it began.
    """

    __slots__ = ("_send", "bytes", "cache", "events", "line", "reason", "started", "status")

    def __init__(self, send: Send, line: Line) -> None:
        self._send = send
        self.line = line
        self.status = 0
        self.bytes = 0
        self.started = False
        self.events = False
        self.cache = ""
        self.reason = ""

    async def start(self, status: int, headers: Headers) -> None:
        """Status and header fields; those about the cache are added here."""
        self.status = status
        self.started = True
        if self.cache:
            headers = [*headers, (b"x-cache", self.cache.encode()), (b"x-cache-reason", _field(self.reason))]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, chunk: bytes) -> None:
        self.bytes += len(chunk)
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def finish(self, body: bytes = b"") -> None:
        self.bytes += len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """A complete answer with its length."""
        await self.start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self.finish(body)

    async def fail(self, error: LlmpodError) -> None:
        """Say what went wrong: as an error answer, or, when one has begun, as an event and then a cut."""
        if not self.started:
            await self.whole(error.status, error_headers(error), error_body(error))
            return
        if self.events and not self.line.gone:
            await self.write(error_event(error))
        self.line.break_off()


def _field(text: str) -> bytes:
    """Text as a header value: visible ASCII and spaces only."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:200]).encode("ascii")
