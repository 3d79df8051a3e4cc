"""Not a log store: what a pod says, read from RunPod's endless event stream without losing or repeating a line.

Source: RunPod's OpenAPI document of 2026-08-20 (``GET /v2/pods/{id}/logs``): Server-Sent Events, ``data`` is
``{"ts", "source", "line"}``, ``id`` is the cursor to go on after; nothing marks the end of the past, so silence does.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from llmpod.backends.runpod_api import RunpodApi, path_id
from llmpod.errors import BadSpec, ProviderError, ProviderUnavailable

SOURCES = ("container", "system")
MOST_LINES = 5000  # RunPod's limit of ``tail``
QUIET_SECONDS = 2.0
WITHIN_SECONDS = 15.0
_MOST_CUTS = 2  # in a row, without a line in between
_MAX_EVENT = 2**20  # bytes; a longer one is no log line


@dataclass(frozen=True, slots=True)
class Line:
    """One log line. ``at`` is RunPod's own timestamp (RFC 3339, UTC), ``cursor`` the place after it."""

    at: str
    source: str
    text: str
    cursor: str


class PodLog:
    """One pod's log, read from a place that moves on.

    Args:
        api: the connection.
        pod_id: the pod.
        source: ``container``, ``system`` (image pull, restarts), or None for both.
        tail: how many past lines to begin with, at most 5000.
        since: begin here instead (RFC 3339).
        clock: monotonic seconds.
    """

    def __init__(
        self,
        api: RunpodApi,
        pod_id: str,
        *,
        source: str | None = None,
        tail: int = 100,
        since: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._path = f"/v2/pods/{path_id(pod_id)}/logs"
        self._begin = {"since": since} if since else {"tail": str(min(tail, MOST_LINES))}
        self._source = {"source": source} if source else {}
        self._cursor = ""
        self._by_time = False
        self._answered = False
        self._clock = clock
        self._seen: deque[Line] = deque(maxlen=MOST_LINES)

    def past(
        self, *, quiet_seconds: float = QUIET_SECONDS, within_seconds: float = WITHIN_SECONDS
    ) -> list[Line]:
        """What there is by now, in order of time; :meth:`more` goes on after it.

        Args:
            quiet_seconds: a silence that long is the end of the past.
            within_seconds: an end by itself, for a pod that never falls silent.

        Raises:
            ProviderError: it cannot be read.
        """
        limit, lines, cuts = self._clock() + within_seconds, list[Line](), 0
        while True:
            before = len(lines)
            try:
                self._collect(lines, quiet_seconds, limit)
                if self._answered or self._clock() > limit:
                    return sorted(lines, key=lambda line: moment(line.at))
                quiet_seconds *= 2  # not even the head of an answer: RunPod is slower than that
            except ProviderUnavailable as e:
                cuts = 0 if len(lines) > before else cuts + 1
                if e.retry_after or cuts > _MOST_CUTS or self._clock() > limit:
                    raise

    def _collect(self, lines: list[Line], quiet_seconds: float, limit: float) -> None:
        """Into ``lines``, so that what came before a cut is kept."""
        for line in self.more(quiet_seconds=quiet_seconds):
            lines.append(line)
            if self._clock() > limit:
                return

    def more(self, *, quiet_seconds: float) -> Iterator[Line]:
        """What comes after the last line that was read, until nothing came for ``quiet_seconds``.

        Raises:
            ProviderUnavailable: cut off; call it again, nothing is lost.
            NotFound: the pod is gone.
            ProviderError: refused.
        """
        try:
            yield from self._more(quiet_seconds)
        except BadSpec:  # a server that takes no such cursor
            if not self._cursor or self._by_time:
                raise
            self._by_time = True
            yield from self._more(quiet_seconds)

    def _more(self, quiet_seconds: float) -> Iterator[Line]:
        """One connection. What an earlier one showed is left out, in case the cursor includes its own line."""
        headers, query, seen = dict[str, str](), self._source | self._begin, set(self._seen)
        if self._cursor and self._by_time:
            query = self._source | {"since": self._cursor.partition("/")[0]}
        elif self._cursor:
            headers = {"Last-Event-ID": self._cursor}
        pieces = self._api.chunks(self._path, read_seconds=quiet_seconds, headers=headers, query=query)
        for line in _lines(self._patient(pieces, quiet_seconds)):
            self._cursor = line.cursor or self._cursor
            self._seen.append(line)
            if line not in seen:
                yield line

    def _patient(self, pieces: Iterable[bytes], quiet_seconds: float) -> Iterator[bytes]:
        """Without the end of a stream that keeps itself alive with comments only."""
        said: float | None = None
        for piece in pieces:
            self._answered = True
            yield piece
            if said is None or b"data:" in piece:
                said = self._clock()
            elif self._clock() - said > quiet_seconds:
                return


def tail(api: RunpodApi, pod_id: str, count: int, within_seconds: float) -> list[Line]:
    """The last lines of a pod, for a record of why its start failed; empty when they cannot be had in time.

    Args:
        api: the connection.
        pod_id: the pod.
        count: at most so many.
        within_seconds: for the whole of it.
    """
    try:
        quiet = min(QUIET_SECONDS, within_seconds / 2)
        return PodLog(api, pod_id, tail=count).past(
            quiet_seconds=quiet, within_seconds=within_seconds - quiet
        )[-count:]
    except ProviderError:
        return []


def moment(at: str) -> float:
    """A line's time as epoch seconds; 0 where RunPod sent none that can be read."""
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return 0.0


def _lines(pieces: Iterable[bytes]) -> Iterator[Line]:
    """Server-Sent Events (WHATWG HTML, 9.2): fields until an empty line; comments and unknown fields are skipped."""
    cursor, data = "", list[str]()
    for row in _rows(pieces):
        name, _, value = row.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            cursor = value
        elif name == "data":
            data.append(value)
        elif not row and data:
            yield _line("\n".join(data), cursor)
            data.clear()


def _rows(pieces: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for piece in pieces:
        *rows, rest = (rest + piece).split(b"\n")
        yield from (row.removesuffix(b"\r").decode("utf-8", "replace") for row in rows)
        if len(rest) > _MAX_EVENT:
            raise ProviderUnavailable("RunPod's log stream has a line without end.")


def _line(data: str, cursor: str) -> Line:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return Line("", "", data, cursor)
    at = str(value.get("ts") or cursor.partition("/")[0])
    return Line(at, str(value.get("source") or ""), str(value.get("line") or ""), cursor or at)
