"""Not a cache and not a client: a flight's bytes to one client, in the form that this client asked for.

There is no task: the flight wakes a delivery when something has come, the client's connection when it takes more
again, and each time the delivery goes as far as it can. One read from the model server is one write to each client.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from llmpod.cache import Head
from llmpod.cache.assemble import assemble
from llmpod.cache.paths import converts
from llmpod.cache.unroll import strip_usage, unroll
from llmpod.errors import UpstreamInvalid
from llmpod.proxy.answer import Answer
from llmpod.proxy.fill import Fill, Form
from llmpod.proxy.headers import Header, Headers, get, is_json, is_stream
from llmpod.proxy.replies import JSON_TYPE, in_openai_shape

SSE_TYPE: Final = (b"content-type", b"text/event-stream; charset=utf-8")
_MAX_ERROR_BYTES: Final = 2**20
_BIG: Final = 65536  # bodies above this are converted in a thread
# what buffering proxies and browsers between us and the client must know about a stream
_STREAM_FIELDS: Final = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
_Whole = tuple[int, Headers, bytes]  # a complete answer: status, fields, body


class Delivery:
    """Begins with ``follow``; from then on it is driven from outside until the answer is over.

    Args:
        fill: what brings the bytes.
        answer: where they go.
        path: of the request.
        want: the form that the client asked for.
        turn: makes what the client gets of the whole body of a good answer; None: it gets that body.
    """

    __slots__ = ("_answer", "_fill", "_listener", "_parts", "_path", "_turned", "_want")

    def __init__(
        self,
        fill: Fill,
        answer: Answer,
        *,
        path: str,
        want: Form,
        turn: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._fill = fill
        self._answer = answer
        self._path = path
        self._want = want
        self._turned = turn
        self._parts: list[bytes] | None = None  # gathered for an answer in another form
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
            if self._advance(flight.head):
                return
            if flight.error is not None:
                self._answer.fail(flight.error)
            elif self._parts is None:
                self._answer.finish()
            elif flight.head is not None:
                self._turn(flight.head, b"".join(self._parts))
        except Exception as error:  # a bug met while one client is served must not reach the other ones
            self._answer.fail(error)

    def _leave(self) -> None:
        self._listener.close()
        self._fill.listener_left()

    # --- inside -------------------------------------------------------------------------------------------
    def _advance(self, head: Head | None) -> bool:
        """Hand on what has come; whether more may come."""
        flight, answer, take = self._fill.flight, self._answer, self._listener.take
        if head is None:
            return not flight.over
        if not answer.started and self._parts is None:
            self._start(head)
        if self._parts is not None:
            while (chunk := take()) is not None:
                self._parts.append(chunk)
            return not flight.over
        while not answer.congested:
            chunk = take()
            if chunk is None:
                answer.flush()
                return not flight.over
            answer.write(chunk)
        return True

    def _start(self, head: Head) -> None:
        streams = is_stream(get(head.headers, b"content-type"))
        converted = self._turned or (self._converted(streams=streams) and converts(self._path))
        if head.status >= 400 or (head.status == 200 and converted):
            self._parts = []
            return
        self._answer.events = streams
        self._answer.start(head.status, [*head.headers, *(_STREAM_FIELDS if streams else ())])

    def _converted(self, *, streams: bool) -> bool:
        """Whether the bytes that come must be turned into another form for this client."""
        want, asked = self._want, self._fill.asked
        if streams:
            return not want.stream or (asked.usage and not want.usage)
        return want.stream and not asked.stream

    def _turn(self, head: Head, body: bytes) -> None:
        """Give the whole body in another form: an error in the shape that clients read, or a converted answer."""
        self._leave()
        path, want, turn = self._path, self._want, self._turned

        def work() -> _Whole:
            if head.status >= 400:
                return _error(head, body)
            if turn is not None:
                return 200, _with_type(JSON_TYPE, head), turn(body)
            return _convert(head, body, path, want)

        if len(body) <= _BIG:
            self._give(work)
            return
        task = asyncio.get_running_loop().run_in_executor(None, work)
        task.add_done_callback(lambda done: self._give(done.result))

    def _give(self, work: Callable[[], _Whole]) -> None:
        try:
            self._answer.whole(*work())
        except Exception as error:  # a bug met while one client is served, as above
            self._answer.fail(error)


def _convert(head: Head, body: bytes, path: str, want: Form) -> _Whole:
    """Raises UpstreamInvalid when the frames cannot be put together."""
    if not is_stream(get(head.headers, b"content-type")):
        return 200, _with_type(SSE_TYPE, head), unroll(body, path=path, include_usage=want.usage)
    if want.stream:
        return 200, _with_type(SSE_TYPE, head), strip_usage(body)
    return 200, _with_type(JSON_TYPE, head), assemble(body, path=path)


def _error(head: Head, body: bytes) -> _Whole:
    """An error of the model server: its status and fields, its body in OpenAI's shape."""
    if len(body) > _MAX_ERROR_BYTES:
        raise UpstreamInvalid(f"The model server answered {head.status} with an error of {len(body)} bytes.")
    content_type = get(head.headers, b"content-type")
    shaped = in_openai_shape(head.status, content_type, body)
    kind = (b"content-type", content_type) if shaped is body and is_json(content_type) else JSON_TYPE
    return head.status, _with_type(kind, head), shaped


def _with_type(kind: Header, head: Head) -> Headers:
    kept = [item for item in head.headers if item[0] not in (b"content-length", b"content-type")]
    return [kind, *kept]
