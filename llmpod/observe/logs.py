"""Not Python's ``logging``: one line of JSON per event (in words at a terminal), no body, no credential.

Lines are put into a bounded buffer on the event loop and written by one thread, so that a slow or full disk
or a closed pipe never holds up an answer (F51). Lines are dropped and counted when the writer cannot keep up.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from llmpod.observe.words import in_words
from llmpod.veil import Veil

FIELD_CHARS: Final = 1024  # per field; longer values are cut and end in an ellipsis
BUFFER_BYTES: Final = 8 * 2**20
LEVELS: Final[Mapping[str, int]] = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}
_SECRET_FIELDS: Final = frozenset(
    {"authorization", "api_key", "x-api-key", "cookie", "token", "body", "prompt"}
)


def iso(seconds: float) -> str:
    """``2026-11-21T08:05:15.123Z`` from seconds since the epoch."""
    millis = int(seconds * 1000)
    return f"{_to_the_second(millis // 1000)}.{millis % 1000:03d}Z"


@lru_cache(maxsize=16)  # thousands of lines have the same
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _plain(value: Any, veil: Veil) -> Any:
    """A value that is safe to print: numbers as they are, text without secrets and capped, anything else as text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = veil.mask(value if isinstance(value, str) else str(value))
    return text if len(text) <= FIELD_CHARS else text[: FIELD_CHARS - 1] + "…"


def encode(at: float, level: str, event: str, fields: Mapping[str, Any], *, veil: Veil) -> bytes:
    """One event as one line. Control characters and non-ASCII are escaped, so a line stays a line (T20)."""
    record: dict[str, Any] = {"ts": iso(at), "level": level.lower(), "event": event}
    shown = {name: value for name, value in fields.items() if name.lower() not in _SECRET_FIELDS}
    record |= {name: _plain(value, veil) for name, value in shown.items()}
    return json.dumps(record, ensure_ascii=True, allow_nan=False, default=str).encode() + b"\n"


class Log:
    """Where events go. Safe to call from any thread; no call here raises or waits for the disk.

    Args:
        write: takes complete lines; may block and may raise OSError.
        level: least severe level that is kept (``DEBUG`` … ``ERROR``).
        clock: seconds since the epoch.
        veil: knows what must not be shown; whoever learns of a secret tells it.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        *,
        level: str = "INFO",
        clock: Callable[[], float] = time.time,
        veil: Veil | None = None,
    ) -> None:
        self.veil = veil or Veil()
        self._write = write
        self._clock = clock
        self.threshold = LEVELS[level]
        self.dropped = 0
        self._lines: list[bytes] = []
        self._waiting = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._drain, name="log", daemon=True)
        self._thread.start()

    def debug(self, event: str, **fields: Any) -> None:
        self._emit("DEBUG", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._emit("INFO", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._emit("WARNING", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._emit("ERROR", event, fields)

    def raw(self, lines: bytes) -> None:
        """Take complete lines that were encoded elsewhere (the access log's batches)."""
        with self._lock:
            if self._waiting + len(lines) > BUFFER_BYTES:
                self.dropped += lines.count(b"\n")
                return
            self._lines.append(lines)
            self._waiting += len(lines)
        self._wake.set()

    def close(self) -> None:
        """Write what is there and stop the thread; harmless when called twice."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout=2.0)

    def _emit(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        if LEVELS[level] < self.threshold:
            return
        try:
            self.raw(encode(self._clock(), level, event, fields, veil=self.veil))
        except (
            ValueError,
            TypeError,
            RecursionError,
        ):  # NaN, a str() that misbehaves: lose the line, not the work
            self.dropped += 1

    def _drain(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                lines, self._lines, self._waiting = self._lines, [], 0
            if lines:
                self._out(b"".join(lines))
            elif self._closing:
                return
            if self._closing:
                self._wake.set()

    def _out(self, block: bytes) -> None:
        try:
            self._write(block)
        except (OSError, ValueError):  # full disk, closed pipe or file: the proxy goes on (F51)
            self.dropped += block.count(b"\n")


class _Bridge(logging.Handler):
    """Foreign libraries speak ``logging``; what they say at WARNING and above becomes one of our lines."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        event = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        try:
            message = record.getMessage().strip()
        except (TypeError, ValueError):
            message = str(record.msg)
        trace = self._log.veil.mask(trace)[-900:]  # half a secret would not be known for one
        event("library", logger=record.name, message=message, **({"trace": trace} if trace else {}))


def _to_stderr(block: bytes) -> None:
    fd = sys.stderr.fileno()
    view = memoryview(in_words(block) if os.isatty(fd) else block)
    while view:
        view = view[os.write(fd, view) :]


def open_log(
    level: str = "INFO", *, write: Callable[[bytes], object] = _to_stderr, veil: Veil | None = None
) -> Log:
    """The process's log, on standard error; what foreign libraries log goes through it too."""
    log = Log(write, level=level, veil=veil)
    root = logging.getLogger()
    root.handlers[:] = [_Bridge(log)]
    root.setLevel(logging.WARNING)
    return log
