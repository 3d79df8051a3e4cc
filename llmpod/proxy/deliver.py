"""Not a cache and not a client: a flight's bytes to one client, in the form that this client asked for.

There is no task: the flight wakes a delivery when something has come, the client's connection when it takes more
again, and each time the delivery goes as far as it can. One read from the model server is one write to each client.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from llmpod.cache import Flight, Head
from llmpod.cache.assemble import assemble
from llmpod.cache.paths import converts, counts_on_request
from llmpod.cache.unroll import UsageFilter, unroll
from llmpod.errors import UpstreamInvalid
from llmpod.proxy.answer import Answer
from llmpod.proxy.ask import Ask
from llmpod.proxy.fill import Fill, Form
from llmpod.proxy.headers import NOSNIFF, Header, Headers, get, is_json, is_stream
from llmpod.proxy.keepalive import Keepalive
from llmpod.proxy.replies import JSON_TYPE, SSE_TYPE, STREAM_FIELDS, in_openai_shape, truer_status

_MAX_ERROR_BYTES: Final = 2**20
_MAX_WHOLE_BYTES: Final = 64 * 2**20  # of an answer that must be there whole before the client gets any of it
_BIG: Final = 65536  # bodies above this are converted in a thread
Whole = tuple[int, Headers, bytes]  # a complete answer: status, fields, body


class Delivery:
    """Begins with ``follow``; from then on it is driven from outside until the answer is over.

    Args:
        fill: what brings the bytes.
        answer: where they go.
        ask: the client's request.
        want: the form that the client asked for.
        keepalive: what it hears while nothing comes.
        turn: makes the answer to this client out of a whole one of status 200; None: it passes.
        instead: makes a JSON answer where there is none; None: the client gets the error.
    """

    __slots__ = (
        *(
            "_answer",
            "_ask",
            "_fill",
            "_filter",
            "_instead",
            "_keepalive",
            "_led",
            "_listener",
            "_parts",
            "_quiet",
        ),
        *("_turned", "_want"),
    )

    def __init__(
        self,
        fill: Fill,
        answer: Answer,
        ask: Ask,
        *,
        want: Form,
        keepalive: Keepalive,
        turn: Callable[[bytes], bytes] | None = None,
        instead: Callable[[], bytes] | None = None,
    ) -> None:
        self._fill = fill
        self._answer = answer
        self._ask = ask
        self._want = want
        self._keepalive = keepalive
        self._turned = turn
        self._instead = instead
        self._parts: list[bytes] | None = None  # gathered for an answer in another form
        self._filter: UsageFilter | None = None
        self._led = answer.started  # it was begun before the model server had said anything
        self._quiet = fill.flight.quiet
        self._listener = fill.flight.follow(self._go_on)

    def begin(self) -> None:
        """Give what is there already."""
        self._answer.when_over = self._leave
        self._answer.when_clear = self._go_on
        if self._fill.flight.head is not None:
            self._go_on()

    # --- driven by the flight and by the client -----------------------------------------------------------
    def _go_on(self) -> None:
        flight = self._fill.flight
        try:
            if flight.quiet != self._quiet:
                self._beat(flight)
            if self._advance(flight.head):
                return
            if flight.error is not None:
                self._fail(flight.error)
            elif self._parts is None:
                self._finish()
            elif flight.head is not None:
                self._turn(flight.head, b"".join(self._parts))
        except Exception as error:  # a bug met while one client is served must not reach the other ones
            self._answer.fail(error)

    def _leave(self) -> None:
        self._listener.close()
        self._fill.listener_left()

    # --- inside -------------------------------------------------------------------------------------------
    def _beat(self, flight: Flight) -> None:
        """The model server has not begun yet: let the client hear that somebody is there."""
        self._quiet = flight.quiet
        answer, head = self._answer, flight.head
        refused = head is not None and head.status != 200
        if refused or answer.congested or self._turned is not None:
            return
        beat = self._keepalive.beat(self._ask, stream=self._want.stream, model=answer.model)
        if beat is None or (answer.started and not self._led and not answer.events):
            return
        if not answer.started:
            self._led = True
            answer.events, answer.blank = beat.events, not beat.events
            answer.start(200, beat.fields)
        answer.write(beat.data)

    def _advance(self, head: Head | None) -> bool:
        """Hand on what has come; whether more may come."""
        flight, answer, take = self._fill.flight, self._answer, self._listener.take
        if head is None:
            return not flight.over
        if self._parts is None and (self._led or not answer.started):
            self._start(head)
        if self._parts is not None:
            while (chunk := take()) is not None:
                self._parts.append(chunk)
            if flight.size > (_MAX_WHOLE_BYTES if head.status < 400 else _MAX_ERROR_BYTES):
                answer.fail(_too_large(head, flight.size))
                return True
            return not flight.over
        while not answer.congested:
            chunk = take()
            if chunk is None:
                answer.flush()
                return not flight.over
            answer.write(chunk if self._filter is None else self._filtered(self._filter, chunk))
        return True

    def _filtered(self, usage: UsageFilter, chunk: bytes) -> bytes:
        """Without the token counts that the client did not ask for; they count all the same."""
        rest = usage.feed(chunk)
        if usage.taken and self._answer.meter is not None:
            self._answer.meter.hear(usage.taken)
        return rest

    def _fail(self, error: Exception) -> None:
        if self._instead is not None and not self._answer.started:
            self._answer.whole(200, [JSON_TYPE, NOSNIFF], self._instead())
        else:
            self._answer.fail(error)

    def _finish(self) -> None:
        if self._filter is not None:
            self._answer.write(self._filter.rest())
        self._answer.finish()

    def _start(self, head: Head) -> None:
        kind = get(head.headers, b"content-type")
        streams = is_stream(kind)
        if head.status >= 400 or self._gathered(head, streams=streams):
            self._parts = []
            return
        if streams and counts_on_request(self._ask.path) and self._fill.asked.usage and not self._want.usage:
            self._filter = UsageFilter()
        if self._led:
            self._led = self._answer.blank = False
            return
        self._answer.events = streams
        # what is taken out would be missing to a length that the server has named
        fields = [item for item in head.headers if self._filter is None or item[0] != b"content-length"]
        self._answer.start(head.status, [*fields, *(STREAM_FIELDS if streams else ())])

    def _gathered(self, head: Head, *, streams: bool) -> bool:
        """Whether the whole body must be there before this client can be given anything of it."""
        if head.status != 200:
            return False
        if self._turned is not None:
            return True
        want = self._want
        if self._led and want.stream != streams:  # it has been told what will come
            return True
        if not converts(self._ask.path):
            return False
        return not want.stream if streams else want.stream and not self._fill.asked.stream

    def _turn(self, head: Head, body: bytes) -> None:
        """Give the whole body in another form: an error in the shape that clients read, or a converted answer."""
        self._leave()
        path, want, turn = self._ask.path, self._want, self._turned
        if self._answer.meter is not None:
            self._answer.meter.hear(body)

        def work() -> Whole:
            if head.status >= 400:
                return _error(head, self._answer.veiled(body))
            if turn is not None:
                return 200, _with_type(JSON_TYPE, head), turn(body)
            return _convert(head, body, path, want)

        if len(body) <= _BIG:
            self._give(work)
            return
        task = asyncio.get_running_loop().run_in_executor(None, work)
        task.add_done_callback(lambda done: self._give(done.result))

    def _give(self, work: Callable[[], Whole]) -> None:
        answer = self._answer
        try:
            status, fields, body = work()
            if not answer.started:
                answer.whole(status, fields, body)
            elif status >= 400:
                answer.break_off(body)
            else:
                answer.write(body)
                answer.finish()
        except Exception as error:  # a bug met while one client is served, as above
            answer.fail(error)


def _too_large(head: Head, size: int) -> UpstreamInvalid:
    what = "an error" if head.status >= 400 else "an answer"
    return UpstreamInvalid(f"The model server answered {head.status} with {what} of {size} bytes or more.")


def _convert(head: Head, body: bytes, path: str, want: Form) -> Whole:
    """Raises UpstreamInvalid when the frames cannot be put together."""
    if is_stream(get(head.headers, b"content-type")):
        return 200, _with_type(JSON_TYPE, head), assemble(body, path=path)
    return 200, _with_type(SSE_TYPE, head), unroll(body, path=path, include_usage=want.usage)


def _error(head: Head, body: bytes) -> Whole:
    """An error of the model server: its status and fields, its body in OpenAI's shape."""
    content_type = get(head.headers, b"content-type")
    shaped = in_openai_shape(head.status, content_type, body)
    kind = (b"content-type", content_type) if shaped is body and is_json(content_type) else JSON_TYPE
    return truer_status(head.status), _with_type(kind, head), shaped


def _with_type(kind: Header, head: Head) -> Headers:
    kept = [item for item in head.headers if item[0] not in (b"content-length", b"content-type")]
    return [kind, *kept]
