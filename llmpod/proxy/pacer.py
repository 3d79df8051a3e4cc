"""Not a limit of ours: calls to a model server that answered 429 go out when it said so, and then few at a time.

The 429 itself passes to whoever asked. Others for the same server, credential and model wait in a line, bounded in
length and time; for whom it would be too long, there is a 429 at once with the seconds that are left. After the pause
one call goes out; each that is accepted lets one more be under way, another 429 begins anew. When the line is empty
all is forgotten, so without trouble this costs one look at an empty table.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Hashable
from email.utils import parsedate_to_datetime
from typing import ClassVar, Final, Protocol, cast

from llmpod.errors import LlmpodError
from llmpod.proxy.headers import Headers, get
from llmpod.proxy.origin import Request
from llmpod.proxy.upstream import Upstream
from llmpod.proxy.wire import Call, Sink

PAUSE_SECONDS: Final = 1.0  # where a 429 does not say how long
LONGEST_PAUSE: Final = 300.0  # then one call finds out whether it is over
ROUNDING: Final = 0.001  # uvloop counts in milliseconds: a timer may fire half of one early
MAX_LANES: Final = 1000  # a client chooses model names


class UpstreamBusy(LlmpodError):
    """The model server said that it gets too many requests, and this one would have to wait too long."""

    status: ClassVar[int] = 429
    type: ClassVar[str] = "rate_limit_error"
    code: ClassVar[str] = "upstream_busy"


class Lane:
    """The line in front of a server that said 429. ``until``: in the loop's time; ``window``: calls at once."""

    __slots__ = ("line", "name", "running", "until", "window")

    def __init__(self, name: Hashable) -> None:
        self.name = name
        self.until = 0.0
        self.window = 1
        self.running = 0
        self.line: deque[Call] = deque()


class Paced(Sink, Protocol):
    """A sink that remembers its lane. ``lane_name``: whom a 429 concerns; ``lane``: it was let out of that line."""

    lane_name: Hashable
    lane: Lane | None


class Pacer:
    """In front of the pool, for all servers.

    Args:
        upstream: makes the calls.
        places: how many may wait for one server.
        patience: seconds that one may wait.
    """

    def __init__(self, upstream: Upstream, *, places: int, patience: float) -> None:
        self._upstream = upstream
        self._places = places
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[Hashable, Lane] = {}

    def adopt(self, *, places: int, patience: float) -> None:
        """Other limits from now on; who waits already keeps his."""
        self._places, self._patience = places, patience

    @property
    def waiting(self) -> int:
        """How many calls wait, for all servers."""
        return sum(not call.over for lane in self._lanes.values() for call in lane.line)

    def call(self, request: Request, sink: Paced) -> Call:
        """Send a request now or when its turn has come; the sink hears of it, never before this returns."""
        lane = self._lanes.get(sink.lane_name) if self._lanes else None
        if lane is None:
            return self._upstream.call(request, sink)
        call = self._upstream.expect(request, sink)
        self._line_up(lane, call)
        return call

    def answered(self, sink: Paced, status: int, headers: Headers) -> None:
        """The head of an answer has come: of a 429, or to a call from a line."""
        if status == 429:
            self._pause(sink.lane_name, pause_of(headers, now=time.time()))
        elif sink.lane is not None:
            sink.lane.window += 1
            self._go(sink.lane)

    def over(self, sink: Paced) -> None:
        """A call has ended."""
        lane, sink.lane = sink.lane, None
        if lane is not None:
            lane.running -= 1
            self._go(lane)

    def try_again(self) -> None:
        """Something has changed about the servers: what they said before does not count."""
        self._upstream.try_again()
        for lane in list(self._lanes.values()):
            lane.until, lane.window = 0.0, len(lane.line) + lane.running
            self._go(lane)

    # --- inside -------------------------------------------------------------------------------------------
    def _line_up(self, lane: Lane, call: Call) -> None:
        wait = lane.until - self._loop.time()
        if len(lane.line) >= self._places:
            lane.line = deque(waiting for waiting in lane.line if not waiting.over)
        if wait > self._patience or len(lane.line) >= self._places:
            self._loop.call_soon(call.fail, _busy(wait))
            return
        lane.line.append(call)
        self._loop.call_later(self._patience, self._expire, lane, call)
        self._go(lane)

    def _pause(self, name: Hashable, seconds: float) -> None:
        lane = self._lanes.get(name)
        if lane is None:
            if len(self._lanes) >= MAX_LANES:
                return
            lane = self._lanes[name] = Lane(name)
        lane.window = 1
        lane.until = max(lane.until, self._loop.time() + min(seconds, LONGEST_PAUSE))
        self._loop.call_at(lane.until + ROUNDING, self._go, lane)

    def _go(self, lane: Lane) -> None:
        """Let out who may go; forget a lane that nobody needs."""
        if self._loop.time() < lane.until:
            return
        while lane.line and lane.running < lane.window:
            call = lane.line.popleft()
            if not call.over:
                self._send(lane, call)
        if not lane.line and not lane.running and self._lanes.get(lane.name) is lane:
            del self._lanes[lane.name]

    def _send(self, lane: Lane, call: Call) -> None:
        lane.running += 1
        cast("Paced", call.sink).lane = lane
        self._upstream.send(call)

    def _expire(self, lane: Lane, call: Call) -> None:
        with contextlib.suppress(ValueError):  # it has gone out
            lane.line.remove(call)
            call.fail(_busy(lane.until - self._loop.time()))


def pause_of(headers: Headers, *, now: float) -> float:
    """Seconds that a server wants to be left alone; :data:`PAUSE_SECONDS` where it does not say so as we know it.

    ``Retry-After`` in seconds or as a date (RFC 9110, 10.2.3), more exactly in Azure's ``retry-after-ms``.

    Args:
        now: Unix time, for dates.
    """
    for name, unit in ((b"retry-after-ms", 1000.0), (b"retry-after", 1.0)):
        with contextlib.suppress(ValueError):
            seconds = float(get(headers, name)) / unit
            if 0 <= seconds < math.inf:
                return seconds
    try:
        date = parsedate_to_datetime(get(headers, b"retry-after").decode("latin-1"))
        return max(0.0, date.timestamp() - now)
    except (ValueError, OverflowError):
        return PAUSE_SECONDS


def _busy(wait: float) -> UpstreamBusy:
    seconds = max(1, math.ceil(wait))
    return UpstreamBusy(
        "The model server said that it gets too many requests (429).",
        hint=f"Try again in {seconds} s.",
        retry_after=seconds,
    )
