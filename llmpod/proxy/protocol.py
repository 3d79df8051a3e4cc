"""Not an application: the HTTP edge. Limits that stock uvicorn lacks, and hits answered before a task exists.

A POST to ``/v1/*`` is gathered here; when the desk has its answer in memory, one buffer is written and done.
Everything else goes to the ASGI application as uvicorn would do it. Answers keep the order of their requests:
the short cut is taken only while no other answer is under way.
"""

import asyncio
from collections import deque
from typing import Any, Final, Protocol

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from llmpod.errors import BadRequest, LlmpodError, TooLarge
from llmpod.proxy.guard import MAX_FIELDS, HeaderTooLarge, MethodNotAllowed
from llmpod.proxy.headers import Headers
from llmpod.proxy.line import LINE, Line
from llmpod.proxy.replies import refusal

LINGER_SECONDS: Final = (
    1.0  # after a refusal: time to read it before the close discards unread input (RFC 9112 9.6)
)
LINGER_BYTES: Final = 2**20


class Desk(Protocol):
    """Whoever can answer at once, and the edge's limits (bytes, seconds)."""

    max_header_bytes: int
    max_body_bytes: int
    keep_alive_seconds: float

    def at_once(self, url: bytes, headers: Headers, body: bytes, client: str) -> bytes | None: ...
    def refused(self, error: LlmpodError, cause: BaseException | None) -> None: ...


class EdgeProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with the edge in front; the desk comes from the lifespan's state."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._desk: Desk = app_state["desk"]
        self._lines: deque[Line] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._active_at = self.loop.time()
        self._client_name = ""
        self._deaf = False  # refused: whatever else comes is dropped
        self._dropped = 0
        self._upgrading = False
        self._in_head = True
        self._head_bytes = 0
        self._field_bytes = 0
        self._turned = False  # a message began or ended within what was fed last
        self._length: int | None = None
        self._refused: LlmpodError | None = None
        self._gathering = False
        self._gathered: list[bytes] = []

    # --- connection -------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._client_name = self.client[0] if self.client else ""
        self._watch(self._desk.keep_alive_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._deaf = True
        super().connection_lost(exc)
        for line in self._lines:
            line.hear_gone()
        self._lines.clear()
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, never more of a header at once than may still come."""
        if self._deaf:
            self._drop(len(data))
        while data and not self._deaf:
            room = self._desk.max_header_bytes - self._head_bytes if self._in_head else len(data)
            if room <= 0:
                self._refuse(
                    HeaderTooLarge(f"The header is larger than {self._desk.max_header_bytes} bytes.")
                )
                return
            piece, data = data[:room], data[room:]
            self._feed(piece)

    def _drop(self, size: int) -> None:
        """What comes after a refusal is read for a while, so that the refusal can be read, but not for ever."""
        self._dropped += size
        if self._dropped > LINGER_BYTES:
            self.flow.pause_reading()

    def shutdown(self) -> None:
        """uvicorn stops: close when idle, else after the answers under way."""
        self._end_after_answers()
        if not self._lines:
            self.transport.close()

    def _watch(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._close_if_idle)

    def _close_if_idle(self) -> None:
        """One timer a connection, not one a request: it looks when it fires how long nothing happened."""
        limit = self._desk.keep_alive_seconds
        quiet = self.loop.time() - self._active_at
        if self._lines:
            self._watch(limit)
        elif quiet >= limit:
            self.transport.close()
        else:
            self._watch(limit - quiet)

    def _feed(self, piece: bytes) -> None:
        self._turned = False
        cause: BaseException | None = None
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as e:
            if self._refused is None:
                self._feed(self._without_upgrade() + piece[e.args[0] :])
                return
        except httptools.HttpParserError as e:
            if self._refused is None:
                self._refused, cause = _reason(e)
        if self._refused is not None:
            self._refuse(self._refused, cause)
        elif self._in_head:
            self._head_bytes = self._field_bytes if self._turned else self._head_bytes + len(piece)

    def _without_upgrade(self) -> bytes:
        """The header again, without the offer of another protocol, for a parser that goes on to the body.

        Java's client offers h2c with every first request; llhttp would take the body for that protocol's bytes.
        """
        method = self.parser.get_method()
        self._upgrading = False
        self.parser = httptools.HttpRequestParser(self)
        offers = (b"upgrade", b"connection", b"http2-settings")
        lines = [b"%b %b HTTP/1.1\r\n" % (method, self.url)]
        lines += [b"%b: %b\r\n" % item for item in self.headers if item[0] not in offers]
        return b"".join([*lines, b"\r\n"])

    def _refuse(self, error: LlmpodError, cause: BaseException | None = None) -> None:
        """Say no and hang up. While an earlier answer is under way, only stop listening."""
        self._deaf = True
        self._desk.refused(error, cause)
        if self._lines:
            self._end_after_answers()
            if not self._lines[-1].forget_request() or len(self._lines) > 1:
                return
            self._lines.clear()
        self.transport.write(refusal(error))
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _end_after_answers(self) -> None:
        for line in self._lines:
            line.last()

    # --- parser -----------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._field_bytes = 0
        self._turned = True
        self._length = None

    def on_url(self, url: bytes) -> None:
        self.url += url
        self._field_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self.headers.append((name, value))
        self._field_bytes += len(name) + len(value)
        if name == b"content-length":
            self._length = int(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._upgrading = self.parser.should_upgrade()
        if self._upgrading:
            if self.parser.get_method() == b"CONNECT":
                self._refused = MethodNotAllowed("This is no tunnel.")
            return
        if len(self.headers) > MAX_FIELDS or self._field_bytes > self._desk.max_header_bytes:
            self._refused = HeaderTooLarge(f"More than {MAX_FIELDS} header fields, or too long ones.")
        elif self._length is not None and self._length > self._desk.max_body_bytes:
            self._refused = TooLarge(f"The body is larger than {self._desk.max_body_bytes} bytes.")
        elif self._can_gather():
            self._gathering = True
            self._gathered = []
        else:
            self._begin()

    def on_body(self, body: bytes) -> None:
        if self._gathering:
            self._gathered.append(body)
            self._active_at = self.loop.time()
        elif self._refused is None and self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = self._turned = True
        self._head_bytes = self._field_bytes = 0
        if self._refused is not None or self._upgrading:
            return
        if not self._gathering:
            super().on_message_complete()
            return
        self._gathering = False
        body = self._gathered[0] if len(self._gathered) == 1 else b"".join(self._gathered)
        self._gathered = []
        if not self._answer_at_once(body):
            self._begin()
            self.cycle.body = body  # type: ignore[assignment]  # bytes serve as well and spare two copies
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # --- requests ---------------------------------------------------------------------------------------------
    def _can_gather(self) -> bool:
        return (
            self._length is not None
            and not self._lines
            and not self.expect_100_continue
            and self.url.startswith(b"/v1/")
            and self.parser.get_method() == b"POST"
        )

    def _answer_at_once(self, body: bytes) -> bool:
        parser = self.parser
        if self.flow.write_paused or not parser.should_keep_alive():
            return False
        if parser.get_http_version() != "1.1":
            return False
        answer = self._desk.at_once(self.url, self.headers, body, self._client_name)
        if answer is None:
            return False
        self.transport.write(answer)
        self.server_state.total_requests += 1
        self._active_at = self.loop.time()
        return True

    def _begin(self) -> None:
        """Hand the request to the application, with its line."""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expect
        self.scope["headers"] = headers
        extensions: dict[str, Any] = {}
        self.scope["extensions"] = extensions
        super().on_headers_complete()
        line = extensions[LINE] = Line(self.cycle)
        self._lines.append(line)

    def on_response_complete(self) -> None:
        """As uvicorn's, but without a timer for each answer."""
        self.server_state.total_requests += 1
        self._active_at = self.loop.time()
        if self._lines.popleft().unread and not self._lines:  # answered early: read no more of it
            self._deaf = True
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)


def _reason(error: httptools.HttpParserError) -> tuple[LlmpodError, BaseException | None]:
    """Why the parser stopped: the client's fault, or a bug in one of our callbacks, which comes along."""
    bug = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
    if bug is None or isinstance(bug, httptools.HttpParserError):
        return BadRequest(f"This is not a valid HTTP/1.1 request: {bug or error}."), None
    return LlmpodError("Something in the proxy went wrong.", hint="Its log says more."), bug
