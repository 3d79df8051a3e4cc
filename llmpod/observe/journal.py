"""Not a log of prompts: who asked for what, how it went and how long it took, for each request.

The hot path appends one tuple; everything else (JSON, escaping) happens later, on the event loop in short
batches, so that no thread fights the loop for the interpreter lock.
"""

import json
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from llmpod.memo import remembered
from llmpod.observe.logs import FIELD_CHARS, LEVELS, Log, iso
from llmpod.observe.metrics import Metrics
from llmpod.veil import Veil

RECENT: Final = 50
MAX_WAITING: Final = 65536
INFO: Final = LEVELS["INFO"]
BATCH: Final = 500  # lines encoded at once: about a millisecond


class Seen(NamedTuple):
    """One answered request. ``path`` has no query string; times in seconds."""

    at: float
    method: str
    path: str
    status: int
    cache: str
    reason: str
    seconds: float
    bytes: int
    model: str
    client: str


def _quoting(veil: Veil) -> Callable[[str], str]:
    """Text as a JSON string without secrets; remembered, since names and paths repeat."""
    return remembered(4096)(lambda text: json.dumps(veil.mask(text)[:FIELD_CHARS]))


def line(seen: Seen, quoted: Callable[[str], str]) -> str:
    """One access line; about two microseconds."""
    level = '"info"' if seen.status < 500 else '"warning"'
    return (
        f'{{"ts": "{iso(seen.at)}", "level": {level}, "event": "request", "method": {quoted(seen.method)}, '
        f'"path": {quoted(seen.path)}, "status": {seen.status}, "cache": "{seen.cache}", '
        f'"reason": {quoted(seen.reason)}, "ms": {seen.seconds * 1000:.3f}, "bytes": {seen.bytes}, '
        f'"model": {quoted(seen.model)}, "client": {quoted(seen.client)}}}\n'
    )


class Journal:
    """Counts a finished request, remembers it for the dashboard and queues its access line."""

    def __init__(self, log: Log, metrics: Metrics, *, clock: Callable[[], float] = time.time) -> None:
        self.log = log
        self.metrics = metrics
        self.clock = clock
        self.last_request: float | None = None
        self._recent: deque[Seen] = deque(maxlen=RECENT)
        self._waiting: deque[Seen] = deque()
        self._known = log.veil.known
        self._quoted = _quoting(log.veil)

    def add(self, seen: Seen) -> None:
        """Take one answered request; constant time, no I/O."""
        if len(seen.model) > FIELD_CHARS:  # a client may write megabytes there
            seen = seen._replace(model=seen.model[:FIELD_CHARS])
        self.metrics.request(seen.status, seen.cache, seen.seconds)
        self.metrics.bytes_out += seen.bytes
        if seen.model:
            self.metrics.model(seen.model)
        self.last_request = seen.at
        self._recent.append(seen)
        if self.log.threshold > INFO:
            return
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(seen)
        else:
            self.log.dropped += 1

    def bug(self, error: BaseException) -> None:
        """Note an exception that nobody expected, with the end of its trace."""
        trace = "".join(traceback.format_exception(error, limit=-3))
        self.log.error("bug", error=type(error).__name__, trace=self.log.veil.mask(trace)[-900:])

    def flush(self, most: int = BATCH) -> bool:
        """Hand up to ``most`` lines to the log; True when more are waiting."""
        waiting = self._waiting
        if self._known != self.log.veil.known:  # what is remembered may hold what is secret now
            self._known, self._quoted = self.log.veil.known, _quoting(self.log.veil)
        lines = [line(waiting.popleft(), self._quoted) for _ in range(min(most, len(waiting)))]
        if lines:
            self.log.raw("".join(lines).encode())
        return bool(waiting)

    def recent(self) -> list[dict[str, Any]]:
        """The last requests, newest first, without any text of theirs."""
        mask = self.log.veil.mask
        shown = (seen._asdict() for seen in reversed(self._recent))
        return [{k: mask(v) if isinstance(v, str) else v for k, v in one.items()} for one in shown]
