"""Not a connection to anybody: takes one upstream answer, feeds everyone who listens, and stores it if complete.

It is driven by the upstream connection's callbacks, so one read becomes one write to each client and no task
stands between. An answer is stored as soon as its last event has come, whoever is still there (most SDKs hang up
right then). One that stops earlier never ends cleanly: its listeners get an error.
"""

import asyncio
import json
import re
from collections.abc import Callable, Hashable
from typing import Final, NamedTuple, Protocol

from llmpod.cache import Entry, Flight, FrameScanner, verdict
from llmpod.cache.paths import Shape, shape_of
from llmpod.errors import LlmpodError, UpstreamInvalid, UpstreamUnreachable
from llmpod.observe import Journal
from llmpod.proxy.headers import Headers, get, is_json, is_stream, media_type, safe_type, to_client
from llmpod.proxy.keeper import Use
from llmpod.proxy.pacer import Lane
from llmpod.proxy.replies import redirected
from llmpod.proxy.wire import Call

MAX_ENTRY_BYTES: Final = 8 * 2**20
MAX_FRAME_BYTES: Final = (
    16 * 2**20
)  # of one event; a response.completed repeats the whole answer and its tools
TAIL_SECONDS: Final = 1.0  # what a server may take from its last event to the end of its answer, unheard
_ENDS_WITH_EVENT: Final = frozenset({Shape.CHAT, Shape.TEXT, Shape.RESPONSES, Shape.MESSAGES})
_NEVER_STORED: Final = frozenset({b"set-cookie"})
_ANSWERS: Final = _ENDS_WITH_EVENT | {Shape.DOCUMENT}
_PAGE: Final = b"text/html"
_WHOSE_PAGE: Final = "Check the endpoint's URL: something else than a model server answers there."
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
# transformers' server ends its streams without [DONE]; a finish reason makes such an end believable
_FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"')


class Form(NamedTuple):
    """How an answer is wanted, or how it was asked for: as a stream or as one document, with token counts or not."""

    stream: bool
    usage: bool


class Owner(Protocol):
    """Whoever began the call: hears of answers that say more than themselves, and of the end."""

    def answered(self, fill: "Fill", status: int, headers: Headers) -> None: ...
    def over(self, fill: "Fill") -> None: ...


class Fill:
    """The sink of one upstream call.

    Args:
        flight: whom to feed.
        path: of the request, with query.
        asked: the form that the model server was asked for.
        use: the model's counters.
        store: takes a complete answer, under the first 32 bytes of the flight's digest; None: it is not stored.
        question: what the answer is to; see ``RequestKey``.
        finish: seconds that an answer to be stored may go on when nobody listens any more.
        owner: who began it.
        lane_name: whom it concerns when the server is busy (pacer.py).
    """

    __slots__ = (
        *(
            "_asked_at",
            "_bug",
            "_clock",
            "_content_type",
            "_finish",
            "_left_at",
            "_log",
            "_loop",
            "_metrics",
            "_owner",
            "_path",
        ),
        *("_question", "_scanner", "_settled", "_status", "_storable", "_store", "_unframed", "_use"),
        *("asked", "call", "flight", "lane", "lane_name"),
    )

    def __init__(
        self,
        flight: Flight,
        path: str,
        *,
        asked: Form,
        use: Use,
        journal: Journal,
        store: Callable[[Entry], object] | None,
        question: bytes,
        finish: float,
        owner: Owner,
        lane_name: Hashable,
    ) -> None:
        self.flight = flight
        self.asked = asked
        self.call: Call | None = None
        self.lane: Lane | None = None
        self.lane_name = lane_name
        self._path = path
        self._use = use
        self._metrics = journal.metrics
        self._log = journal.log
        self._bug = journal.bug
        self._clock = journal.clock
        self._store = store
        self._question = question
        self._finish = finish
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._asked_at = self._loop.time()
        self._left_at = 0.0
        self._status = 0
        self._content_type = b""
        self._storable = False
        self._unframed = False
        self._scanner: FrameScanner | None = None
        self._settled = False
        use.begin()
        self._metrics.in_flight += 1

    # --- from upstream ------------------------------------------------------------------------------------
    def head(self, status: int, headers: Headers, *, more: bool) -> None:
        self._status = status
        self._content_type = get(headers, b"content-type")
        if status == 429 or self.lane is not None:
            self._owner.answered(self, status, headers)
        if 300 <= status < 400:  # a 304, too: nothing of ours was conditional
            self._stop(redirected(status))
            return
        if is_stream(self._content_type):
            self._scanner = FrameScanner(self._path)
        elif status == 200 and media_type(self._content_type) == _PAGE and shape_of(self._path) in _ANSWERS:
            self._stop(UpstreamInvalid("The model server answered with a web page.", hint=_WHOSE_PAGE))
            return
        names = {name for name, _ in headers}
        self._storable = status == 200 and self._store is not None and names.isdisjoint(_NEVER_STORED)
        self._metrics.first_byte_seconds.observe(self._loop.time() - self._asked_at)
        self._use.last_byte = self._clock()
        self._unframed = names.isdisjoint(_FRAMING)
        fields = to_client(headers)
        if b"content-length" in names:
            fields += [item for item in headers if item[0] == b"content-length"]
        self.flight.start(status, tuple(fields), quiet=more)

    def data(self, chunk: bytes) -> None:
        self._use.last_byte = self._clock()
        flight = self.flight
        flight.append(chunk)
        if self._scanner is not None and self._scanner.feed(chunk) and not self._settled:
            self._loop.call_soon(self._settle)  # after the bytes have left for those who listen
        if self._scanner is not None and self._scanner.received - self._scanner.boundary > MAX_FRAME_BYTES:
            if self.call is not None:
                self.call.fail(UpstreamInvalid("The model server sent an event that does not end."))
            return
        if flight.crowded and self.call is not None:
            self.call.pause()
            flight.when_room = self.call.resume

    def end(self) -> None:
        if self._scanner is not None:
            self._loop.call_soon(self._end_of_stream)
        elif self._unframed and self._cut_json():
            self.failed(
                UpstreamInvalid("The model server closed the connection in the middle of its answer.")
            )
        else:
            self._settle()
            self._over()
            self.flight.finish()

    def failed(self, error: LlmpodError) -> None:
        self._over()
        if self._scanner is not None and self._scanner.done:  # the answer was whole; only its end was not
            self._settle()
            self.flight.finish()
            return
        self._metrics.failure(error.code)
        self._metrics.truncated += self.flight.head is not None
        self._log.warning("upstream", path=self._path, code=error.code, reason=error.message)
        if isinstance(error, UpstreamUnreachable | UpstreamInvalid):
            self._use.lost()
        self.flight.fail(error)

    def quiet(self) -> None:
        self.flight.still_waiting()

    # --- from listeners -----------------------------------------------------------------------------------
    def listener_left(self) -> None:
        """Nobody listens any more: stop the model server, unless all that is missing is the end of the body.

        By option an answer that can be stored gets a little time to end by itself.
        """
        if self.call is None or self.call.over or self.flight.listeners:
            return
        if self._scanner is not None and self._scanner.done:
            self.call.deadline = min(self.call.deadline, self._loop.time() + TAIL_SECONDS)
        elif self._finish and self._storable and not self.flight.spilled:
            self._left_at = self._loop.time()
            self._loop.call_later(self._finish, self._give_up, self._left_at)
        else:
            self._give_up(self._left_at)

    def _give_up(self, left_at: float) -> None:
        """End the call, unless somebody came after that; who has left again since has set another time."""
        deserted = self.call is not None and not self.call.over and not self.flight.listeners
        if deserted and left_at == self._left_at:
            self._metrics.cancelled += 1
            self._stop(None)

    # --- inside -------------------------------------------------------------------------------------------
    def _end_of_stream(self) -> None:
        self._settle()
        self._over()
        if self._ended_well():
            self.flight.finish()
            return
        self._metrics.truncated += 1
        self._log.warning("upstream", path=self._path, code="truncated", reason="ended before its last event")
        self.flight.fail(UpstreamInvalid("The model server ended its stream before the answer was complete."))

    def _ended_well(self) -> bool:
        if self._status != 200 or shape_of(self._path) not in _ENDS_WITH_EVENT:
            return True
        if self._scanner is not None and self._scanner.done:
            return True
        return not self.flight.spilled and _FINISH.search(self.flight.body()) is not None

    def _cut_json(self) -> bool:
        """An answer whose end is the end of the connection shows a cut only in its text."""
        if not is_json(self._content_type) or self.flight.spilled or not self.flight.size:
            return False
        try:
            json.loads(self.flight.body())
        except (ValueError, RecursionError):
            return True
        return False

    def _settle(self) -> None:
        """Judge the answer once, and store it when it is complete."""
        if self._settled:
            return
        self._settled = True
        try:
            self._judge()
        except Exception as error:  # a bug met while it is judged must not keep it from those who listen
            self._bug(error)

    def _judge(self) -> None:
        store = self._store
        if not self._storable or store is None or self.flight.spilled:
            return
        body = self.flight.body()
        if self._scanner is not None:
            body = body[: self._scanner.end]
        stream = self._scanner is not None
        judged = verdict(body, stream=stream, path=self._path)
        if not judged.complete or len(body) > MAX_ENTRY_BYTES:
            self._log.info("not_stored", path=self._path, reason=judged.reason or "too large")
            return
        entry = Entry(
            key=self.flight.digest[:32],
            path=self._path,
            stream=stream,
            content_type=safe_type(self._content_type).decode("latin-1"),
            body=body,
            stored_at=self._clock(),
            model=judged.model or "",
            has_usage=judged.has_usage,
            request=self._question or None,
        )
        store(entry)

    def _stop(self, error: LlmpodError | None) -> None:
        """Cancel the call; those who listen, if any, get the error."""
        if self.call is not None:
            self.call.cancel()
        self._over()
        if error is not None:
            self._metrics.failure(error.code)
            self.flight.fail(error)
        else:
            self.flight.fail(UpstreamUnreachable("Everybody who wanted this answer has left."))

    def _over(self) -> None:
        self._metrics.in_flight -= 1
        self.call = None  # it holds us as its sink: without this, only the collector would free both
        self._owner.over(self)
        self._use.end()
