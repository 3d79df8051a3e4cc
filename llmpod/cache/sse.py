"""Not a parser on the hot path: finds where server-sent events end, and when the last one has come.

Bytes are never held back, merged or split by anything here; the scanner only looks at what passes by. Line ends
may be LF, CRLF or CR, as in https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream.

A frame is everything up to and including the blank line that ends it; blank lines before it belong to it.
"""

import json
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from llmpod.cache.paths import Shape, shape_of
from llmpod.errors import UpstreamInvalid

_EOL: Final = rb"(?>\r\n|\n|\r)"  # atomic, so that CRLF is never taken for two line ends
_BLANK_LINE: Final = re.compile(_EOL + _EOL)
_LEADING: Final = re.compile(rb"[\r\n]*")
_LINE_END: Final = re.compile(r"\r\n|\n|\r")

DONE: Final = "[DONE]"
_LF: Final = 10
RESPONSES_END: Final = ("response.completed", "response.failed", "response.incomplete")
_MARKERS: Final = {
    Shape.RESPONSES: tuple(name.encode() for name in RESPONSES_END),
    Shape.MESSAGES: (b"message_stop",),
}


class Event(NamedTuple):
    """One dispatched event: its ``event:`` field (empty when it has none) and its data."""

    name: str
    data: str


def _event(frame: str) -> Event | None:
    """What a frame dispatches; None for comments and frames without data."""
    name, data = "", []
    for line in _LINE_END.split(frame):
        label, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if label == "data":
            data.append(value)
        elif label == "event":
            name = value
    return Event(name, "\n".join(data)) if data else None


def iter_frames(body: bytes) -> Iterator[bytes]:
    """The frames of a body, byte-exact: joined they are the body again. The last may lack its blank line."""
    start, size = 0, len(body)
    while start < size:
        lead = _LEADING.match(body, start)
        found = _BLANK_LINE.search(body, lead.end() if lead else start)
        end = found.end() if found else size
        yield body[start:end]
        start = end


def stream_text(body: bytes) -> str:
    """A body as text with LF line ends. Raises UpstreamInvalid when it is not UTF-8."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise UpstreamInvalid(f"The model server's stream is not UTF-8 (byte {error.start}).") from None
    return _LINE_END.sub("\n", text) if "\r" in text else text


def parse_events(body: bytes) -> list[Event]:
    """The events of a body. One that lacks its blank line is not dispatched, as the standard wants.

    Raises:
        UpstreamInvalid: the body is not UTF-8.
    """
    return events_of(stream_text(body))


def events_of(text: str) -> list[Event]:
    """The events of a text with LF line ends."""
    events = []
    for frame in text.split("\n\n")[:-1]:
        if frame.startswith("data: ") and "\n" not in frame:  # what servers send, at a tenth of the price
            events.append(Event("", frame[6:]))
        elif event := _event(frame):
            events.append(event)
    return events


def event_type(event: Event) -> str:
    """The type of a Responses or Messages event. Not every server repeats it in the ``event:`` field."""
    if event.name:
        return event.name
    try:
        kind = json.loads(event.data).get("type")
    except (ValueError, RecursionError, AttributeError):
        return ""
    return kind if isinstance(kind, str) else ""


class FrameScanner:
    """Follows a stream chunk by chunk and knows when its terminal frame is complete.

    Terminal is ``data: [DONE]`` for completions, ``response.completed`` (or ``.incomplete``, ``.failed``) for
    Responses, ``message_stop`` for Messages. A chunk that ends at a frame's end, as nearly all do, costs a few
    searches in C: about 1 µs.

    Attributes:
        received: bytes fed.
        boundary: offset just after the last complete frame; what follows is the start of a frame.
        end: offset just after the terminal frame, or None.
        frames: complete frames seen.
        done: the terminal frame has come.
    """

    __slots__ = (
        "_carry",
        "_marker",
        "_markers",
        "_resume",
        "_shape",
        "_skip_lf",
        "boundary",
        "end",
        "frames",
        "received",
    )

    def __init__(self, path: str = "/v1/chat/completions") -> None:
        self._shape = shape_of(path)
        self._marker, *self._markers = _MARKERS.get(self._shape, (DONE.encode(),))
        self._carry = bytearray()
        self._resume = 0
        self._skip_lf = False
        self.received = 0
        self.boundary = 0
        self.frames = 0
        self.end: int | None = None

    @property
    def done(self) -> bool:
        return self.end is not None

    def feed(self, chunk: bytes | memoryview) -> bool:
        """Looks at the next bytes of the stream; True once the terminal frame is complete."""
        data = chunk if isinstance(chunk, bytes) else bytes(chunk)
        if (
            self._carry
            or self._skip_lf
            or not data.endswith(b"\n\n")
            or self._marker in data  # perhaps the last frame is among them
            or (self._markers and any(marker in data for marker in self._markers))
            or b"\r" in data
            or b"\n\n\n" in data
            or data[0] == _LF
        ):
            self._slow(data)
        else:  # plain LF frames, whole ones
            self.received += len(data)
            self.boundary = self.received
            self.frames += data.count(b"\n\n")
        return self.end is not None

    def _slow(self, data: bytes) -> None:
        self.received += len(data)
        if self._skip_lf and data:
            self._skip_lf = False
            if data.startswith(b"\n"):  # the second half of a CRLF whose first half ended the frame
                data = data[1:]
                self.end = self.end + 1 if self.end == self.boundary else self.end
                self.boundary += 1
        carry = self._carry
        carry += data
        start = 0
        while (stop := self._next_end(start)) is not None:
            self._frame(bytes(carry[start:stop]))
            self._skip_lf = carry[stop - 1] == 13 and stop == len(carry)
            start, self._resume = stop, 0
        del carry[:start]
        self._resume = max(0, len(carry) - 3)  # a blank line is at most four bytes

    def _next_end(self, start: int) -> int | None:
        lead = _LEADING.match(self._carry, start)
        found = _BLANK_LINE.search(self._carry, max(lead.end() if lead else start, self._resume))
        return found.end() if found else None

    def _frame(self, frame: bytes) -> None:
        self.frames += 1
        self.boundary += len(frame)
        if (
            self.end is None
            and any(marker in frame for marker in (self._marker, *self._markers))
            and self._is_last(frame)
        ):
            self.end = self.boundary

    def _is_last(self, frame: bytes) -> bool:
        event = _event(frame.decode(errors="replace"))
        if event is None:
            return False
        if self._shape is Shape.RESPONSES:
            return event_type(event) in RESPONSES_END
        if self._shape is Shape.MESSAGES:
            return event_type(event) == "message_stop"
        return event.data.strip() == DONE
