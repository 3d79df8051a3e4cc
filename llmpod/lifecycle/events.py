"""Not a messenger and not the truth: a bounded journal of what is worth telling a person, and how far each target is.

``events.jsonl`` holds one event a line; a full one becomes ``events.jsonl.1``, and the one before that is lost.
Each event has a number that only grows, so that "delivered up to here" is one figure for each target
(``delivered.json``). A crash between sending and noting that figure sends the event again, never not at all.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from llmpod.errors import StateError
from llmpod.lifecycle import files
from llmpod.model import Event, EventKind
from llmpod.veil import Veil

MAX_BYTES = 2**20
MAX_TEXT = 1800  # characters; with the words around it, it fits Discord's limit of 2000
FRESH_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Entry:
    """An event and its number in the journal; who gets it twice knows it by the number."""

    number: int
    event: Event


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one target is: the number of the last event it has, and how its last attempts went."""

    done: int
    failures: int = 0
    next_try_at: float = 0.0

    @classmethod
    def fresh(cls, now: float) -> "Progress":
        """Where a target begins that was just configured: with the last hour, not with the whole past."""
        return cls(_number(now - FRESH_SECONDS))


class EventLog:
    """The journal of one installation.

    Args:
        directory: a private directory of ours; nothing is written there before the first event.
        veil: takes the secrets out of what is noted.
        max_bytes: a longer file is set aside as the old one.
    """

    def __init__(self, directory: Path, veil: Veil | None = None, *, max_bytes: int = MAX_BYTES) -> None:
        self.directory = directory
        self._veil = veil or Veil()
        self._path = directory / "events.jsonl"
        self._old = directory / "events.jsonl.1"
        self._progress = directory / "delivered.json"
        self._max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"EventLog({self._path})"

    def append(self, event: Event) -> Entry:
        """One more event, durable before this returns; secrets are masked in its text.

        The caller holds the store's lock, so there is one writer.

        Raises:
            StateError: the disk refuses. No event is worth stopping a pass for.
        """
        last = self._last()
        text = self._veil.mask(event.text)[:MAX_TEXT]
        # Numbers are milliseconds, made unique: they go on growing even when the journal was removed meanwhile.
        entry = Entry(max(_number(event.at), last + 1), Event(event.kind, event.model, text, event.at))
        line = json.dumps({"number": entry.number, **asdict(entry.event)}) + "\n"
        try:
            if self._path.exists() and self._path.stat().st_size + len(line) > self._max_bytes:
                self._path.replace(self._old)
            files.append(self._path, line.encode())
        except OSError as e:
            raise StateError(f"Cannot write {self._path}: {e.strerror}.") from None
        return entry

    def entries(self) -> list[Entry]:
        """All that is kept, oldest first; lines that a crash or a full disk has torn are left out."""
        # The new file first: a rotation in between then shows some events twice instead of not at all.
        found = {entry.number: entry for path in (self._path, self._old) for entry in _read(path)}
        return [found[number] for number in sorted(found)]

    def progress(self) -> dict[str, Progress]:
        """How far each target is; nothing when that file is damaged, and then the last hour is sent once more."""
        try:
            document = files.read_json(self._progress) or {}
            return {target: _progress(item) for target, item in document.items()}
        except (StateError, KeyError, TypeError, ValueError):
            return {}

    def delivered(self, progress: Mapping[str, Progress]) -> None:
        """Note how far the targets are; one that is not among them is forgotten.

        Raises:
            StateError: the disk refuses; what was sent will be sent again.
        """
        document = {target: asdict(item) for target, item in progress.items()}
        files.write_atomic(self._progress, json.dumps(document) + "\n")

    def _last(self) -> int:
        newest = next(_read(self._path, backwards=True), None) or next(_read(self._old, backwards=True), None)
        return newest.number if newest else 0


def _number(at: float) -> int:
    return int(at * 1000)


def _read(path: Path, *, backwards: bool = False) -> Iterator[Entry]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in reversed(lines) if backwards else lines:
        try:
            item = json.loads(line)
            event = Event(EventKind(item["kind"]), str(item["model"]), str(item["text"]), float(item["at"]))
            yield Entry(int(item["number"]), event)
        except (ValueError, KeyError, TypeError):
            continue


def _progress(item: Mapping[str, float]) -> Progress:
    return Progress(int(item["done"]), int(item["failures"]), float(item["next_try_at"]))
