"""Not an answerer: reads the requests off one connection, whole and within bounds.

Strict (llhttp), no more of a header at once than may still come, the body in memory up to its limit. What cannot be
served is refused before it is read where that is known so early.
"""

import asyncio
from dataclasses import replace

import httptools

from llmpod.errors import BadRequest, LlmpodError, TooLarge
from llmpod.proxy.ask import OPEN, Ask, Leave
from llmpod.proxy.body import Body
from llmpod.proxy.guard import MAX_FIELDS, MethodNotAllowed
from llmpod.proxy.headers import Headers
from llmpod.proxy.room import FREE, no_room
from llmpod.proxy.strict import RequestTimeout, check_head, check_line, reason, too_large, without_upgrade
from llmpod.proxy.sweep import Deadlines

RESTS_SECONDS = 2.0  # of silence after which nothing is remembered of the last request
MAX_FRAMING = 16 * 2**10  # of what stands around one chunk: extensions, trailers


class Intake(asyncio.Protocol):
    """The reading half of the edge (see ``protocol.py``); a subclass takes the requests.

    Args:
        max_header_bytes: of request line and fields.
        max_body_bytes: of a body.
    """

    def __init__(
        self, *, max_header_bytes: int, max_body_bytes: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._max_header_bytes = max_header_bytes
        self._max_body_bytes = max_body_bytes
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._active_at = loop.time()
        self._client = ""
        self._refused: LlmpodError | None = None
        self._deaf = False  # whatever else comes is dropped
        self._url = self._target = b""
        self._headers: Headers = []
        self._leave = OPEN
        self._body = Body()
        self._framing = 0  # bytes since the last whole chunk that are none of the body
        self._since = 0.0  # when the header began, or its body; 0 between requests
        self._served = False  # a request was read
        self._length: int | None = None
        self._expects = self._upgrading = False  # the client waits for "100 Continue"; offers h2c
        self._in_head = True
        self._head_bytes = self._field_bytes = 0
        self._recent = b""  # what came since before the header began, until it is whole
        self._turned = False  # a message began or ended within what was fed last
        self._begun = 0  # messages in what was read last
        # the request that was read last, if it may be asked again (see ``_remember``)
        self._came: Ask | None = None
        self._known: Ask | None = None
        self._head = b""
        self._again = 0  # bytes of it

    # --- for the subclass -------------------------------------------------------------------------------------
    def take(self, ask: Ask) -> None:
        """A request has come."""
        raise NotImplementedError

    def admit(self, method: str, path: str, headers: Headers) -> Leave:
        """What the request whose header has come may do. Raises LlmpodError when it may not come in."""
        raise NotImplementedError

    def refuse(self, error: LlmpodError, cause: BaseException | None) -> None:
        """There will be no further request; ``cause`` is a bug of ours, if it was one."""
        raise NotImplementedError

    def keeps(self, size: int) -> bool:
        """Whether there is memory for so many bytes more of a body."""
        raise NotImplementedError

    def expected(self) -> None:
        """The client sends its body only when it is told to go on."""
        raise NotImplementedError

    def dropped(self, size: int) -> None:
        """So many bytes came after the last request."""
        raise NotImplementedError

    # --- input ------------------------------------------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        """Feed the parser, never more of a header at once than may still come.

        A client sends the same header again and again on a connection. One that is, to the byte, that of the request
        before it means what it meant then, so a body of the same length is all that is new.
        """
        if len(data) == self._again and data.startswith(self._head) and not self._deaf:
            body = data[len(self._head) :]
            if len(body) > FREE and not self.keeps(len(body)):
                self._stop(no_room())
            else:
                self._repeat(body)
            return
        self._again = self._begun = 0
        if self._deaf:
            self.dropped(len(data))
        whole = data
        while data and not self._deaf:
            room = self._max_header_bytes - self._head_bytes if self._in_head else len(data)
            if room <= 0:
                self._stop(too_large(self._url, self._headers))
                return
            piece, data = data[:room], data[room:]
            self._feed(piece)
        self._remember(whole)

    def overdue(self, now: float, deadlines: Deadlines) -> LlmpodError | str:
        """What to tell a client that takes too long; a text for one that is owed nothing, empty while it may go on.

        Asked only while no answer is under way.
        """
        quiet = now - self._active_at
        if not self._since:
            if quiet > RESTS_SECONDS:
                self._rest()
            late = quiet >= (deadlines.idle if self._served else deadlines.header)
            return "idle" if late else ""
        taken = now - self._since
        if self._in_head:
            late = taken >= deadlines.header
        else:
            late = quiet >= deadlines.body_idle or self._body.drips(self._since, now, deadlines)
        part = "header" if self._in_head else "body"
        return RequestTimeout(f"The request's {part} did not come in time.") if late else ""

    def forget(self) -> None:
        """The next request is asked again what it may do, be its header the same or not."""
        self._again = 0

    def _rest(self) -> None:
        """Keep nothing of the last request: there may be thousands of connections like this one."""
        self._again, self._head, self._known, self._came = 0, b"", None, None
        self._headers, self._body, self._url, self._target = [], Body(), b"", b""

    def _remember(self, data: bytes) -> None:
        """Note a request that was read at once and alone: nothing before it in the parser, and nothing behind it."""
        came, self._came = self._came, None
        if came is None or self._deaf or not came.keep or self._length is None:
            return
        head = data[: data.find(b"\r\n\r\n") + 4]
        if self._begun == 1 and len(head) + self._length == len(data):
            self._head, self._again = head, len(data)
            self._known = replace(came, body=b"", key=None)  # a prompt is not kept for that

    def _repeat(self, body: bytes) -> None:
        known = self._known
        assert known is not None
        ask = Ask(
            known.method, known.path, known.target, known.headers, body, known.client, facts=known.facts
        )
        ask.chunks, ask.leave = known.chunks, known.leave
        self.take(ask)

    def _feed(self, piece: bytes) -> None:
        self._turned = False
        cause: BaseException | None = None
        body_before, self._framing = self._body.size, self._framing + len(piece)
        try:
            self._recent = self._recent + piece if self._since and self._in_head else piece
            self._parser.feed_data(piece)
        except BadRequest as e:
            self._refused = e
        except httptools.HttpParserUpgrade as e:
            if self._refused is None:
                method, self._upgrading, self._in_head = self._parser.get_method(), False, True
                self._parser = httptools.HttpRequestParser(self)
                self._feed(without_upgrade(method, self._url, self._headers) + piece[e.args[0] :])
                return
        except httptools.HttpParserError as e:
            if self._refused is None:
                self._refused, cause = reason(e)
        if not (self._since and self._in_head):
            self._recent = b""
        if self._refused is None and not self._in_head:
            self._check_framing(body_before)
        if self._refused is not None:
            self._stop(self._refused, cause)
        elif self._in_head:
            self._head_bytes = self._field_bytes if self._turned else self._head_bytes + len(piece)

    def _check_framing(self, body_before: int) -> None:
        """Extensions and trailers without end would be kept by the parser without end."""
        if self._turned or self._length is not None:  # no chunks, or they began within this piece
            self._framing = 0
        else:
            self._framing = max(0, self._framing - (self._body.size - body_before))
            if self._framing > MAX_FRAMING:
                self._refused = BadRequest("The chunks of the body carry too much beside the body.")

    def _stop(self, error: LlmpodError, cause: BaseException | None = None) -> None:
        self._refused = error
        self._deaf = True
        self._body = Body()
        self.refuse(error, cause)

    # --- parser -----------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._body = Body()
        self._field_bytes = 0
        self._since = self._loop.time()
        self._length = None
        self._expects = False
        self._turned = True
        self._begun += 1

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._field_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: nobody here wants one, and it came too late for the gate
        name, value = name.lower(), value.strip(b" \t")
        self._headers.append((name, value))
        self._field_bytes += len(name) + len(value)
        if name == b"content-length":
            self._length = int(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self._expects = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._refused is not None:  # what came with it in one piece is parsed on, and is nobody's
            return
        self._upgrading = self._parser.should_upgrade()
        self._active_at = self._since = self._loop.time()
        try:
            self._check_head()
        except LlmpodError as e:
            self._refused = e
        else:
            if self._expects and not self._upgrading:
                self.expected()

    def _check_head(self) -> None:
        """Raises LlmpodError: too large, ambiguous, or not to be let in."""
        method, version = self._parser.get_method(), self._parser.get_http_version()
        check_line(method, self._url, version, seen=self._recent)
        if self._upgrading:
            if method == b"CONNECT":
                raise MethodNotAllowed("This is no tunnel.")
            return  # it comes again, without the offer
        if len(self._headers) > MAX_FIELDS or self._field_bytes > self._max_header_bytes:
            raise too_large(self._url, self._headers)
        self._target = check_head(method, version, self._url, self._headers)
        path = self._target.partition(b"?")[0].decode("latin-1")
        self._leave = self.admit(method.decode("ascii"), path, self._headers)
        if self._length is not None and self._length > self._max_body_bytes:
            raise TooLarge(f"The body is larger than {self._max_body_bytes} bytes.")

    def on_body(self, body: bytes) -> None:
        if self._refused is not None:
            return
        self._body.add(body)
        self._active_at = self._loop.time()
        size = self._body.size
        if size > self._max_body_bytes:
            self._refused = TooLarge(f"The body is larger than {self._max_body_bytes} bytes.")
        elif size > FREE and not self.keeps(len(body) if size - len(body) > FREE else size):
            self._refused = no_room()

    def on_chunk_complete(self) -> None:
        self._framing = 0

    def on_message_complete(self) -> None:
        self._in_head = self._turned = self._served = True
        self._since = 0.0
        self._head_bytes = self._field_bytes = 0
        self._expects = False
        if self._refused is None and not self._upgrading:
            self._came = self._ask()
            self.take(self._came)

    def _ask(self) -> Ask:
        """The request that has come."""
        parser, url = self._parser, self._target
        chunks = parser.get_http_version() == "1.1"
        return Ask(
            parser.get_method().decode("ascii"),
            url.partition(b"?")[0].decode("latin-1"),
            url,
            self._headers,
            self._body.whole(),
            self._client,
            keep=chunks and parser.should_keep_alive(),
            chunks=chunks,
            leave=self._leave,
        )
