"""Not a logger: the log lines of a pod, some of them dated in the future, and the endless stream that shows them."""

import asyncio
import bisect
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from llmpod.sim.clock import Clock, rfc3339
from llmpod.sim.problems import invalid
from llmpod.sim.wire import Exchange, Headers

_SOURCES = ("container", "system")
_MOST = 5000
_EVENTS = (("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no"))


@dataclass(frozen=True, order=True)
class Line:
    """One log line; lines that are dated in the future appear when their time has come."""

    at: float
    number: int
    source: str
    text: str

    @property
    def event(self) -> bytes:
        moment = rfc3339(self.at)
        data = json.dumps({"ts": moment, "source": self.source, "line": self.text}, ensure_ascii=False)
        return f"id: {moment}/{self.number:012d}\ndata: {data}\n\n".encode()


class Journal:
    """The lines of one pod, in order of time."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._count = 0
        self.changed = asyncio.Event()

    def add(self, at: float, source: str, text: str) -> None:
        """One more line, possibly a future one."""
        self._count += 1
        bisect.insort(self._lines, Line(at, self._count, source, text))
        self.changed.set()
        self.changed = asyncio.Event()

    def forget_after(self, moment: float) -> None:
        """What was to come will not: the pod was stopped."""
        self._lines = [line for line in self._lines if line.at <= moment]

    def until(self, moment: float) -> list[Line]:
        return [line for line in self._lines if line.at <= moment]

    def next_after(self, moment: float) -> float:
        """When the next planned line is due; a day from now when none is."""
        return next((line.at for line in self._lines if line.at > moment), moment + 86400)


@dataclass(frozen=True)
class LogQuery:
    """What a client asked to see."""

    sources: tuple[str, ...]
    tail: int
    after: Callable[[Line], bool] | None


def log_query(query: dict[str, str], last_event: str | None) -> LogQuery:
    """The parameters of a log request; Last-Event-ID wins over `since`, which wins over `tail`. Raises Problem 422."""
    source = query.get("source")
    if source is not None and source not in _SOURCES:
        raise invalid("query.source: value must be one of 'container', 'system'")
    tail = query.get("tail", "100")
    if not tail.isdecimal() or int(tail) > _MOST:
        raise invalid(f"query.tail: must be an integer from 0 to {_MOST}")
    after = None
    if last_event:
        after = _after_event(last_event)
    elif "since" in query:
        since = _moment(query["since"], "query.since")
        after = lambda line: line.at >= since  # noqa: E731 - one of two ways to say where to start
    return LogQuery((source,) if source else _SOURCES, int(tail), after)


def _after_event(last_event: str) -> Callable[[Line], bool]:
    """Exclusive: what comes after the event with this id; a bare timestamp counts as one."""
    text, _, number = last_event.partition("/")
    if number.isdecimal():
        return lambda line: (
            rfc3339(line.at) > text or (rfc3339(line.at) == text and line.number > int(number))
        )
    moment = _moment(text, "header.Last-Event-ID")
    return lambda line: line.at > moment


def _moment(text: str, where: str) -> float:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(f"{where}: must be an RFC 3339 timestamp") from None
    if value.tzinfo is None:
        raise invalid(f"{where}: must be an RFC 3339 timestamp")
    return value.timestamp()


async def stream(
    exchange: Exchange, journal: Journal, seen_by: tuple[Clock, LogQuery], headers: Headers
) -> None:
    """The events, past and future. Never ends by itself, as the real one does not."""
    clock, wanted = seen_by
    past = [line for line in journal.until(clock.now()) if line.source in wanted.sources]
    skip = 0 if wanted.after else max(0, len(past) - wanted.tail)
    seen = {line.number for line in past[:skip]}
    seen.update(line.number for line in past if wanted.after and not wanted.after(line))
    await exchange.start(200, [*_EVENTS, *headers], chunked=True)
    while not exchange.gone:
        now = [line for line in journal.until(clock.now()) if line.source in wanted.sources]
        fresh = [line for line in now if line.number not in seen]
        for line in fresh:
            seen.add(line.number)
            await exchange.send(line.event)
        if not fresh:
            await _something_new(journal, clock, exchange)


async def _something_new(journal: Journal, clock: Clock, exchange: Exchange) -> None:
    """A line was added, a planned one is due, or the reader has left."""
    due = journal.next_after(clock.now())
    events = (journal.changed.wait(), clock.sleep_until(due), exchange.left())
    waits = [asyncio.ensure_future(event) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
