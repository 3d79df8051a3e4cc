"""Not an application: the HTTP edge. Limits that a stock server lacks, order, and no task for what needs none.

A request is gathered whole; then, in the order of their coming and one at a time, ``/v1/*`` goes to the desk (hits
from memory: one buffer is written and done) or to the relay, and everything else to the ASGI application.
"""

import asyncio
from collections import deque
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.server import ServerState

from llmpod.errors import BadRequest, LlmpodError, TooLarge
from llmpod.proxy.answer import Answer
from llmpod.proxy.ask import Ask
from llmpod.proxy.cycle import Stage
from llmpod.proxy.desk import Desk
from llmpod.proxy.guard import MAX_FIELDS, HeaderTooLarge, MethodNotAllowed
from llmpod.proxy.headers import Headers
from llmpod.proxy.relay import Relay
from llmpod.proxy.replies import refusal

LINGER_SECONDS: Final = (
    1.0  # after a refusal: time to read it before the close discards unread input (RFC 9112 9.6)
)
LINGER_BYTES: Final = 2**20


class EdgeProtocol(asyncio.Protocol):
    """One connection of a client, for uvicorn's server; desk and relay come from the lifespan's state."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._desk: Desk = app_state["desk"]
        self._relay: Relay = app_state["relay"]
        self._parser = httptools.HttpRequestParser(self)
        self._active_at = self._loop.time()
        self._client = ""
        # answers
        self._waiting: deque[Ask] = deque()
        self._current: Answer | RequestResponseCycle | None = None
        self._serving = False
        self._closing = False  # told to stop: after the answers that are owed
        self._refused: LlmpodError | None = None
        self._deaf = False  # whatever else comes is dropped
        self._dropped = 0
        # the request that is coming
        self._url = b""
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._length: int | None = None
        self._expects = False  # the client waits for "100 Continue"
        self._upgrading = False
        self._in_head = True
        self._head_bytes = 0
        self._field_bytes = 0
        self._turned = False  # a message began or ended within what was fed last

    # --- connection -------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # it names its own classes
        self._transport = transport
        self._flow = FlowControl(transport)
        self._stage = Stage(self._config, self._server_state, self._app_state, transport, self._flow)
        client = get_remote_addr(transport)
        self._client = client[0] if client else ""
        self._watch(self._desk.keep_alive_seconds)

    def connection_lost(self, _: Exception | None) -> None:
        self._server_state.connections.discard(self)
        self._timer.cancel()
        self._deaf = True
        self._waiting.clear()
        current = self._current
        if isinstance(current, Answer):
            current.gone()
        elif current is not None:
            current.disconnected = True
            current.message_event.set()
        self._flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, never more of a header at once than may still come."""
        if self._deaf:
            self._drop(len(data))
        while data and not self._deaf:
            room = self._desk.max_header_bytes - self._head_bytes if self._in_head else len(data)
            if room <= 0:
                self._refused = HeaderTooLarge(
                    f"The header is larger than {self._desk.max_header_bytes} bytes."
                )
                self._refuse()
                return
            piece, data = data[:room], data[room:]
            self._feed(piece)

    def pause_writing(self) -> None:
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        self._flow.resume_writing()
        if isinstance(self._current, Answer) and self._current.when_clear is not None:
            self._current.when_clear()

    def shutdown(self) -> None:
        """The server stops: close when idle, else after the answers that are owed."""
        self._closing = True
        if isinstance(self._current, RequestResponseCycle) and not self._waiting:
            self._current.keep_alive = False
        elif self._current is None:
            self._transport.close()

    def interrupt(self) -> None:
        """The grace is over. The application's answers are tasks of the server, which cancels them itself."""
        self._waiting.clear()
        if isinstance(self._current, Answer):
            self._relay.interrupt(self._current)

    def _watch(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._close_if_idle)

    def _close_if_idle(self) -> None:
        """One timer a connection, not one a request: it looks when it fires how long nothing happened."""
        limit = self._desk.keep_alive_seconds
        quiet = self._loop.time() - self._active_at
        if self._current is not None:
            self._watch(limit)
        elif quiet >= limit:
            self._transport.close()
        else:
            self._watch(limit - quiet)

    # --- input ------------------------------------------------------------------------------------------------
    def _drop(self, size: int) -> None:
        """What comes after a refusal is read for a while, so that the refusal can be read, but not for ever."""
        self._dropped += size
        if self._dropped > LINGER_BYTES:
            self._flow.pause_reading()

    def _feed(self, piece: bytes) -> None:
        self._turned = False
        cause: BaseException | None = None
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as e:
            if self._refused is None:
                self._feed(self._without_upgrade() + piece[e.args[0] :])
                return
        except httptools.HttpParserError as e:
            if self._refused is None:
                self._refused, cause = _reason(e)
        if self._refused is not None:
            self._refuse(cause)
        elif self._in_head:
            self._head_bytes = self._field_bytes if self._turned else self._head_bytes + len(piece)

    def _without_upgrade(self) -> bytes:
        """The header again, without the offer of another protocol, for a parser that goes on to the body.

        Java's client offers h2c with every first request; llhttp would take the body for that protocol's bytes.
        """
        method = self._parser.get_method()
        self._upgrading = False
        self._parser = httptools.HttpRequestParser(self)
        offers = (b"upgrade", b"connection", b"http2-settings")
        lines = [b"%b %b HTTP/1.1\r\n" % (method, self._url)]
        lines += [b"%b: %b\r\n" % item for item in self._headers if item[0] not in offers]
        return b"".join([*lines, b"\r\n"])

    def _refuse(self, cause: BaseException | None = None) -> None:
        """Listen no more; say no and hang up when the answers that are owed have been given."""
        assert self._refused is not None
        self._deaf = True
        self._desk.refused(self._refused, cause)
        if self._current is None:
            self._say_no(self._refused)

    def _say_no(self, error: LlmpodError) -> None:
        self._transport.write(refusal(error))
        self._loop.call_later(LINGER_SECONDS, self._transport.close)

    # --- parser -----------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._body = []
        self._body_bytes = self._field_bytes = 0
        self._length = None
        self._expects = False
        self._turned = True

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._field_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._headers.append((name, value))
        self._field_bytes += len(name) + len(value)
        if name == b"content-length":
            self._length = int(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self._expects = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._upgrading = self._parser.should_upgrade()
        if self._upgrading:
            if self._parser.get_method() == b"CONNECT":
                self._refused = MethodNotAllowed("This is no tunnel.")
            return
        if len(self._headers) > MAX_FIELDS or self._field_bytes > self._desk.max_header_bytes:
            self._refused = HeaderTooLarge(f"More than {MAX_FIELDS} header fields, or too long ones.")
        elif self._length is not None and self._length > self._desk.max_body_bytes:
            self._refused = TooLarge(f"The body is larger than {self._desk.max_body_bytes} bytes.")
        elif self._expects and self._current is None:
            self._go_on()

    def on_body(self, body: bytes) -> None:
        if self._refused is not None:
            return
        self._body.append(body)
        self._body_bytes += len(body)
        self._active_at = self._loop.time()
        if self._body_bytes > self._desk.max_body_bytes:
            self._refused = TooLarge(f"The body is larger than {self._desk.max_body_bytes} bytes.")

    def on_message_complete(self) -> None:
        self._in_head = self._turned = True
        self._head_bytes = self._field_bytes = 0
        self._expects = False
        if self._refused is None and not self._upgrading:
            self._waiting.append(self._ask())
            self._go_on()

    def _ask(self) -> Ask:
        """The request that has come. Raises BadRequest."""
        parser, parts, url = self._parser, self._body, self._url
        if not url.startswith(b"/") or b"#" in url:
            url = _origin_form(url)
        chunks = parser.get_http_version() == "1.1"
        return Ask(
            parser.get_method().decode("ascii"),
            url.partition(b"?")[0].decode("latin-1"),
            url,
            self._headers,
            parts[0] if len(parts) == 1 else b"".join(parts),
            self._client,
            keep=chunks and parser.should_keep_alive(),
            chunks=chunks,
        )

    # --- answers ----------------------------------------------------------------------------------------------
    def _go_on(self) -> None:
        """Answer what waits, as far as that is possible at once; then hear of more."""
        if self._serving:
            return
        self._serving = True
        try:
            while self._waiting and self._current is None and not self._transport.is_closing():
                self._serve(self._waiting.popleft())
        finally:
            self._serving = False
        if self._waiting:
            self._flow.pause_reading()
        elif self._current is None and self._refused is not None:
            self._say_no(self._refused)
        elif self._current is None:
            if self._expects:
                self._expects = False
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._flow.resume_reading()

    def _serve(self, ask: Ask) -> None:
        if not ask.target.startswith(b"/v1/"):
            self._current = self._stage.run(ask, lambda: self.answered(keep=ask.keep))
            return
        plain = ask.keep and ask.method == "POST" and not self._flow.write_paused and not self._closing
        hit = self._desk.at_once(ask) if plain else None
        if hit is not None:
            self._transport.write(hit)
            self.answered(keep=True)
            return
        self._current = answer = Answer(self, ask, self._desk.journal)
        self._relay.serve(ask, answer)

    # --- for answers (see answer.Wire) ------------------------------------------------------------------------
    @property
    def congested(self) -> bool:
        return self._flow.write_paused

    @property
    def last(self) -> bool:
        return self._closing and not self._waiting

    @property
    def fields(self) -> Headers:
        return self._server_state.default_headers

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def answered(self, *, keep: bool) -> None:
        """An answer is over; the connection goes on if it can and may."""
        self._current = None
        self._server_state.total_requests += 1
        self._active_at = self._loop.time()
        if keep and not self.last:
            self._go_on()
        else:
            self._deaf = True
            self._transport.close()


def _origin_form(url: bytes) -> bytes:
    """Path and query of a target that says more than that. Raises BadRequest."""
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        raise BadRequest("The request's target is not a URL.") from None
    path: bytes = parsed.path or b"/"
    return path + b"?" + parsed.query if parsed.query else path


def _reason(error: httptools.HttpParserError) -> tuple[LlmpodError, BaseException | None]:
    """Why the parser stopped: the client's fault, or a bug in one of our callbacks, which comes along."""
    bug = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
    if isinstance(bug, BadRequest):
        return bug, None
    if bug is None or isinstance(bug, httptools.HttpParserError):
        return BadRequest(f"This is not a valid HTTP/1.1 request: {bug or error}."), None
    return LlmpodError("Something in the proxy went wrong.", hint="Its log says more."), bug
