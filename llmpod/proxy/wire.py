"""Not a pool and not a client: one connection to a model server, and the reading of one answer at a time.

httptools (llhttp) parses strictly: two lengths, a bad chunk or a bare LF end the answer. Everything that was
read from the socket at once is handed on at once, so that one read becomes one write.
"""

import asyncio
from typing import Final, Protocol, cast

import httptools

from llmpod.errors import LlmpodError, UpstreamInvalid, UpstreamUnreachable
from llmpod.proxy.headers import Headers, fault
from llmpod.proxy.origin import Request

MAX_HEAD_BYTES: Final = 64 * 2**10
MAX_FIELDS: Final = 200
STALE_SECONDS: Final = 1.0  # within which it is heard that a server had closed: a round trip
MAX_BARE_BYTES: Final = 128 * 2**10  # of head or framing, without a byte of the body between them
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class Sink(Protocol):
    """Takes one answer: ``head``, then ``data`` any number of times, then ``end``; or ``failed`` at any time.

    ``more``: bytes of the body came along with the head; ``data`` is called next. ``quiet``: there is still no byte
    of the body, as after every such interval.
    """

    def head(self, status: int, headers: Headers, *, more: bool) -> None: ...
    def data(self, chunk: bytes) -> None: ...
    def end(self) -> None: ...
    def failed(self, error: LlmpodError) -> None: ...
    def quiet(self) -> None: ...


class Owner(Protocol):
    """Whoever lends connections out."""

    idle_seconds: float

    def released(self, connection: "Connection", *, reusable: bool) -> None: ...
    def lost(self, connection: "Connection") -> None: ...
    def again(self, call: "Call") -> None: ...
    def over(self, call: "Call") -> None: ...


class Call:
    """One request on its way. ``cancel`` closes its connection; the sink then hears nothing more.

    Attributes:
        received: a byte of the answer came, so it may not be asked again.
        begun: a byte of its body came, so what counts from now on is the silence between two reads.
        quiet_at: when the sink is to be told that the body has still not begun.
    """

    __slots__ = (
        *("begun", "connection", "deadline", "dials", "over", "owner", "paused", "quiet_at", "received"),
        *("request", "sink", "total"),
    )

    def __init__(self, request: Request, sink: Sink, owner: Owner) -> None:
        self.request = request
        self.sink = sink
        self.owner = owner
        self.connection: Connection | None = None
        self.deadline = 0.0
        self.total = 0.0
        self.quiet_at = 0.0
        self.dials = 0
        self.over = False
        self.paused = False
        self.received = False
        self.begun = False

    def cancel(self) -> None:
        """Give up: the model server sees its connection close. Harmless when the call is over."""
        self._leave()

    def fail(self, error: LlmpodError) -> None:
        """End with an error, unless it is over already."""
        if self._leave():
            self.sink.failed(error)

    def finish(self) -> None:
        if not self.over:
            self.over = True
            self.owner.over(self)
            self.sink.end()

    def pause(self) -> None:
        """Stop reading: the one who listens is slow. The idle deadline rests meanwhile."""
        if not self.paused and self.connection:
            self.paused = True
            self.connection.pause()

    def resume(self) -> None:
        if self.paused and self.connection and not self.over:
            self.paused = False
            self.connection.resume()

    def _leave(self) -> bool:
        if self.over:
            return False
        self.over = True
        self.owner.over(self)
        if self.connection:
            self.connection.abandon()
        return True


class Connection(asyncio.Protocol):
    """One TCP or TLS connection; at most one call at a time."""

    __slots__ = (
        *("_bare_bytes", "_call", "_complete", "_error", "_fields", "_head_bytes", "_head_done"),
        *("_head_sent", "_headers"),
        *("_loop", "_owner", "_parser", "_parts", "_reusable", "_status", "_transport", "_until_close"),
        *("_sent_at", "idle_since", "place", "used"),
    )

    def __init__(self, owner: Owner, place: tuple[bool, str, int]) -> None:
        self.place = place
        self.idle_since = 0.0
        self.used = False
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._call: Call | None = None
        self._status = 0
        self._sent_at = 0.0
        self._headers: Headers = []
        self._bare_bytes = self._fields = self._head_bytes = 0
        self._head_done = False
        self._head_sent = False
        self._complete = False
        self._until_close = False
        self._reusable = False
        self._parts: list[bytes] = []
        self._error: LlmpodError | None = None

    # --- for the pool ----------------------------------------------------------------------------------
    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, call: Call) -> None:
        """Write a whole request; its answer goes to the call's sink."""
        assert self._transport is not None
        self._call = call
        self._sent_at = self._loop.time()
        call.connection = self
        self._reset()
        head, body = call.request.head(), call.request.body
        if len(body) <= 65536:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def abandon(self) -> None:
        """Close at once; whatever was running is forgotten (a half-read answer must never be pooled)."""
        self._call = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if self.usable and self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.usable and self._transport is not None:
            self._transport.resume_reading()
            if self._call is not None:
                self._call.deadline = self._loop.time() + self._owner.idle_seconds

    # --- asyncio ---------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class

    def data_received(self, data: bytes) -> None:
        call = self._call
        if call is None:  # nobody asked: such a connection cannot be trusted with the next answer
            self.abandon()
            return
        call.received = True
        if call.begun:
            call.deadline = self._loop.time() + self._owner.idle_seconds
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as e:
            if not self._complete and self._error is None:
                self._error = UpstreamInvalid(f"The model server's answer is not valid HTTP: {_told(e)}.")
            self._reusable = False
        if not self._parts:
            self._bare_bytes += len(data)
            if self._bare_bytes > MAX_BARE_BYTES and self._error is None:
                self._error = UpstreamInvalid("The model server's answer goes on without a byte of its body.")
        elif self._bare_bytes:
            self._bare_bytes = 0
        self._deliver(call)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)
        del self._parser  # it holds our methods: without this cycle a connection is freed at once
        call, self._call = self._call, None
        if call is None or call.over:
            return
        if self._until_close and exc is None:
            call.finish()
        elif self._was_stale(call):  # the next connection is a fresh one
            self._owner.again(call)
        elif self._head_done:
            call.fail(UpstreamInvalid("The model server broke off in the middle of its answer."))
        else:
            call.fail(UpstreamUnreachable("The model server closed the connection without an answer."))

    # --- httptools -------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        if self._complete:  # a second answer to one question: whatever it says is not for us
            self._reusable = False
        else:
            self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field; those behind the body (trailers) are counted and belong to nobody."""
        if self._complete:
            return
        self._head_bytes += len(name) + len(value)
        self._fields += 1
        if self._fields > MAX_FIELDS or self._head_bytes > MAX_HEAD_BYTES:
            self._error = UpstreamInvalid("The model server's answer has too many or too long header fields.")
        elif not self._head_done:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._complete or 100 <= status < 200:
            return
        self._status = status
        self._head_done = True
        self._reusable = self._parser.should_keep_alive()
        self._until_close = status != 204 and _FRAMING.isdisjoint([name for name, _ in self._headers])
        if wrong := fault(status, self._headers):
            self._error = UpstreamInvalid(f"The model server's answer {wrong}.")

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._head_done:
            self._complete = True

    # --- inside ----------------------------------------------------------------------------------------
    def _was_stale(self, call: Call) -> bool:
        """Whether the server had closed before it saw the request; one that closes later may have begun to compute."""
        soon = self._loop.time() - self._sent_at < STALE_SECONDS
        return soon and self.used and not call.received

    def _reset(self) -> None:
        self._bare_bytes = self._fields = self._head_bytes = 0
        self._head_done = self._head_sent = self._complete = self._until_close = self._reusable = False
        self._parts = []
        self._error = None

    def _deliver(self, call: Call) -> None:
        """Hand on what one read brought. The sink may cancel, pause or start another call while we do."""
        if not self._head_sent and self._error is not None:
            call.fail(self._error)
            return
        if self._head_done and not self._head_sent:
            self._head_sent = True
            call.sink.head(self._status, self._headers, more=bool(self._parts))
        if self._parts and not call.over:
            parts, self._parts = self._parts, []
            if not call.begun:
                call.begun = True
                call.deadline = self._loop.time() + self._owner.idle_seconds
            call.sink.data(parts[0] if len(parts) == 1 else b"".join(parts))
        if self._error is not None:
            call.fail(self._error)
        elif self._complete and not call.over:
            self._hand_back(paused=call.paused)
            call.finish()

    def _hand_back(self, *, paused: bool) -> None:
        self._call = None
        if paused:  # by the last bytes of the answer; the next one must be heard
            self.resume()
        written = self._transport is not None and self._transport.get_write_buffer_size() == 0
        self._owner.released(self, reusable=self._reusable and written and self.usable)


def _told(error: Exception) -> str:
    """What llhttp has against it; of a change of protocol it says only where."""
    if isinstance(error, httptools.HttpParserUpgrade):
        return "it changes the protocol"
    return str(error).rstrip(".")
