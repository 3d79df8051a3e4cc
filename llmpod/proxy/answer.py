"""Not a response library: one answer to one client, written straight to its connection, and noted when it ends."""

from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from itertools import count
from time import perf_counter
from typing import Final, Protocol

from llmpod.errors import LlmpodError
from llmpod.observe import Journal, Seen
from llmpod.proxy.ask import Ask
from llmpod.proxy.headers import Headers
from llmpod.proxy.meter import Meter
from llmpod.proxy.replies import error_body, error_event, error_headers
from llmpod.proxy.slots import Place

BIG: Final = 65536  # a piece of a body from here on is not copied behind what stands before it
LEFT: Final = 499  # the status of an answer whose client left before it began, as nginx has it
_BODILESS: Final = frozenset({204, 304})
_NUMBERS: Final = count(1)


class Wire(Protocol):
    """The connection to a client, as an answer needs it."""

    @property
    def congested(self) -> bool:
        """The client does not take what was written: write no more for now."""

    @property
    def last(self) -> bool:
        """The connection closes after the answer under way."""

    @property
    def lines(self) -> bytes:
        """Header lines of every answer (``Date``)."""

    def write(self, data: bytes) -> None: ...
    def answered(self, *, keep: bool) -> None:
        """An answer is over; the connection can be kept."""


class Answer:
    """One answer. What is written after its end, or to a client that left, is dropped.

    Attributes:
        ask: what it answers.
        meter: counts its tokens, where they count.
        number: its own in this process, which no later one gets.
        place: the place it is worked on in; None: it needs none.
        cache: ``HIT``, ``MISS``, ``JOIN``, ``BYPASS`` or empty; sent as ``X-Cache``.
        reason: why; sent as ``X-Cache-Reason``.
        events: the body is a stream of events, so an error can be said after it began.
        blank: the body is to be JSON and holds nothing but white space yet, so an error can be said in its place.
        over: nothing more can be said, because all was said or the client left.
        when_over: called once, at the end.
        when_clear: called when the client has taken what was written (see ``congested``).
    """

    __slots__ = (
        *(
            "_bodiless",
            "_chunked",
            "_journal",
            "_keep",
            "_length",
            "_pending",
            "_since",
            "_wire",
            "ask",
            "blank",
        ),
        *("bytes", "cache", "events", "meter", "model", "number", "over", "place", "reason"),
        *("started", "status", "when_clear", "when_over"),
    )

    def __init__(self, wire: Wire, ask: Ask, journal: Journal) -> None:
        self._wire = wire
        self.ask = ask
        self._journal = journal
        self._keep = ask.keep
        self._chunked = False
        self._bodiless = ask.method == "HEAD"
        self._length: int | None = None  # of the body, as it was announced
        self._pending = b""
        self._since = perf_counter()
        self.number = next(_NUMBERS)
        self.status = 0
        self.bytes = 0
        self.started = False
        self.events = False
        self.blank = False
        self.over = False
        self.cache = ""
        self.reason = ""
        self.model = ""
        self.meter: Meter | None = None
        self.place: Place | None = None
        self.when_over: Callable[[], object] | None = None
        self.when_clear: Callable[[], object] | None = None

    @property
    def seconds(self) -> float:
        """Since the request came."""
        return perf_counter() - self._since

    @property
    def congested(self) -> bool:
        return self._wire.congested

    def veiled(self, foreign: bytes) -> bytes:
        """Somebody else's text without our secrets: servers like to repeat the key that they refuse."""
        return self._journal.log.veil.live_bytes(foreign)

    # --- to the client ------------------------------------------------------------------------------------
    def start(self, status: int, headers: Headers) -> None:
        """Status and header fields; those about the cache and the framing are added. They leave with the first
        bytes of the body, or with ``flush``.
        """
        if self.over:
            return
        self.status = status
        self.started = True
        lines = [status_line(status), self._wire.lines]
        framed = self._bodiless = self._bodiless or status in _BODILESS
        for item in headers:
            lines.append(b"%b: %b\r\n" % item)
            if item[0] == b"content-length":
                framed, self._length = True, int(item[1])
        if self.cache:
            lines.append(_about_cache(self.cache, self.reason))
        if not framed:
            self._chunked = self.ask.chunks
            self._keep = self._keep and self._chunked  # else the end of the body is that of the connection
            lines.append(b"transfer-encoding: chunked\r\n" if self._chunked else b"")
        self._keep = self._keep and not self._wire.last
        lines.append(b"\r\n" if self._keep else b"connection: close\r\n\r\n")
        self._pending = b"".join(lines)

    def flush(self) -> None:
        """Send what is held back."""
        if self._pending and not self.over:
            pending, self._pending = self._pending, b""
            self._wire.write(pending)

    def write(self, chunk: bytes) -> None:
        """The next bytes of the body."""
        if self.over:
            return
        self.bytes += len(chunk)
        if self.meter is not None:
            self.meter.see(chunk)
        if self._bodiless or not chunk:
            return
        if len(chunk) >= BIG:
            self._write_big(chunk)
            return
        pending, self._pending = self._pending, b""
        framed = b"%b%x\r\n%b\r\n" % (pending, len(chunk), chunk) if self._chunked else pending + chunk
        self._wire.write(framed)

    def _write_big(self, chunk: bytes) -> None:
        """Not copied: others may keep it, too, and a client that reads slowly would have a copy of its own."""
        if self._chunked:
            self._pending += b"%x\r\n" % len(chunk)
        self.flush()
        self._wire.write(chunk)
        self._pending = b"\r\n" if self._chunked else b""

    def finish(self) -> None:
        """The body is complete."""
        if self.over:
            return
        if self._chunked:
            self._pending += b"0\r\n\r\n"
        self.flush()
        # a server may announce more than it has said when it is done; what comes next is no rest of that
        short = self._length is not None and self.bytes != self._length and not self._bodiless
        self._end(keep=self._keep and not short)

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """A complete answer with its length."""
        self.start(status, [*headers, (b"content-length", str(len(body)).encode())])
        self.write(body)
        self.finish()

    def fail(self, error: Exception) -> None:
        """Say what went wrong: as an error answer, or, when one has begun, as an event and then a cut.

        An error that is none of ours is a bug: it leaves in the same shape, and with a trace in our log.
        """
        if not isinstance(error, LlmpodError):
            self._journal.bug(error)
            error = LlmpodError("Something in the proxy went wrong.", hint="Its log says more.")
        if not self.started:
            self.whole(error.status, error_headers(error), error_body(error))
        else:
            self.break_off(error_body(error))

    def break_off(self, error: bytes) -> None:
        """Say the JSON of an error where that is still possible, and cut: what has begun must not end cleanly."""
        if self.over:
            return
        if self.events or self.blank:
            self.write(error_event(error) if self.events else error)
        self.flush()
        self._end(keep=False)

    # --- from the client ----------------------------------------------------------------------------------
    def gone(self) -> None:
        """The client left."""
        if self.over:
            return
        self._journal.metrics.client_gone += 1
        self.status = self.status or LEFT
        self._end(keep=False)

    # --- inside -------------------------------------------------------------------------------------------
    def _end(self, *, keep: bool) -> None:
        self.over = True
        tell, self.when_over, self.when_clear = self.when_over, None, None
        if tell is not None:
            tell()
        self.place = None  # it knows us, and is to be freed with us
        ask, journal = self.ask, self._journal
        seconds = perf_counter() - self._since
        journal.add(
            Seen(
                journal.clock(),
                ask.method,
                ask.path,
                self.status,
                self.cache,
                self.reason,
                seconds,
                self.bytes,
                self.model,
                ask.client,
            )
        )
        self._wire.answered(keep=keep)


def status_line(status: int) -> bytes:
    """The first line of an answer; a status that has no name gets none."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}


@lru_cache(maxsize=256)
def _about_cache(result: str, reason: str) -> bytes:
    """The header lines that say what the cache did, in visible ASCII and spaces only."""
    text = "".join(c if " " <= c <= "~" else "?" for c in reason[:200])
    return b"x-cache: %b\r\nx-cache-reason: %b\r\n" % (result.encode(), text.encode("ascii"))
