"""Not the cache that serves: looks into a cache directory from outside, for ``cache ls|show|why|verify|stats|export``.

Nothing here takes the directory's lock, so a proxy may go on using it meanwhile; what it writes later is not seen.
Changing a directory from outside is in ``offline.py``.
"""

import base64
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmpod.cache import files
from llmpod.cache.cold import length_of, offset_of, slot_of
from llmpod.cache.entry import DEAD, USES, Corrupt, Entry, decode
from llmpod.cache.replay import Replay, uses
from llmpod.cache.root import Root, Unusable, look_into, why
from llmpod.cache.walk import Walk
from llmpod.errors import StateError

EXPORT_FORMAT: Final = "llmpod-cache-1"


@dataclass(frozen=True)
class Stored:
    """One entry, as ``cache ls`` shows it.

    Attributes:
        entry: with body and request.
        size: bytes of its record.
        last_use: seconds since the epoch; when it was stored, if no use is on record.
        hits: as far as they are on record: lists of uses go with the segments that they were written to.
    """

    entry: Entry
    size: int
    last_use: float
    hits: int

    @property
    def digest(self) -> str:
        """In hexadecimal."""
        return self.entry.key.hex()


@dataclass(frozen=True)
class Verified:
    """What ``cache verify`` found.

    Attributes:
        entries: that are exactly what was stored.
        damaged: first 15 digits and reason of those that are not; they will never be served.
        lost_bytes: between records, in segments: torn tails and damaged frames.
    """

    entries: int
    damaged: list[tuple[str, str]]
    lost_bytes: int


class Contents:
    """What is in a directory at this moment.

    Args:
        directory: of a cache.
        mac_key: as the cache was opened with; empty for the key in the directory.

    Raises:
        StateError: it cannot be read, or is no cache.
    """

    def __init__(self, directory: Path, *, mac_key: bytes = b"") -> None:
        self.directory = directory
        try:
            self._root = look_into(directory, mac_key)
            self._replay = Replay(self._root)
            self._replay.run()
        except Unusable as error:
            raise StateError(str(error)) from None
        except OSError as error:
            raise StateError(f"{directory} cannot be read: {why(error)}") from None

    def __len__(self) -> int:
        return len(self._replay.places)

    def keys(self) -> list[str]:
        """The first 15 digits of each key, least recently used first."""
        return [f"{digits:015x}" for digits in self._replay.places]

    def entries(self, prefix: str = "", *, last: int = 0) -> Iterator[Stored]:
        """The entries whose digest begins so, least recently used first; damaged ones are left out.

        Args:
            prefix: hexadecimal digits.
            last: look at so many only, those used last; 0: at all.
        """
        used = self._uses()
        for digits, place in list(self._replay.places.items())[-last:]:
            if not f"{digits:015x}".startswith(prefix[:15].lower()):
                continue
            with suppress(Corrupt):
                entry = self._read(place)
                if entry.key.hex().startswith(prefix.lower()):
                    at, hits = used.get(digits, (0.0, 0))
                    yield Stored(entry, length_of(place), max(at, entry.stored_at), hits)

    def verify(self) -> Verified:
        """Checks every record."""
        damaged, good = [], 0
        for digits, place in self._replay.places.items():
            try:
                self._read(place)
                good += 1
            except Corrupt as error:
                damaged.append((f"{digits:015x}", str(error)))
        lost = sum(walk.damaged for _, walk in self._walks())
        return Verified(good, damaged, lost)

    def stats(self) -> dict[str, Any]:
        """Numbers, without reading the entries."""
        sizes = files.segments(self._root.fd)
        live = sum(map(length_of, self._replay.places.values()))
        return {
            "entries": len(self),
            "size_bytes": live,
            "disk_bytes": sum(sizes.values()) + self._replay.snapshot_bytes,
            "segments": len(sizes),
            "dead_bytes": sum(sizes.values()) - live,
        }

    def export(self) -> Iterator[str]:
        """The entries as lines of JSON that ``offline.import_lines`` reads, the format's name first."""
        yield json.dumps({"format": EXPORT_FORMAT})
        for stored in self.entries():
            yield json.dumps(_as_json(stored.entry), ensure_ascii=False)

    # --- inside --------------------------------------------------------------------------------------------------
    def _read(self, place: int) -> Entry:
        segment = self._replay.segments.get(slot_of(place))
        if segment is None:
            raise Corrupt("its segment is gone")
        try:
            with files.reading(files.segment_name(segment.number), self._root.fd) as fd:
                record = os.pread(fd, length_of(place), offset_of(place))
        except OSError as error:
            raise Corrupt(f"it cannot be read: {why(error)}") from None
        return decode(record, None, self._root.signer)

    def _walks(self) -> Iterator[tuple[int, Walk]]:
        """Each segment, walked through to its end when the iterator goes on."""
        for number, size in files.segments(self._root.fd).items():
            with suppress(OSError), files.reading(files.segment_name(number), self._root.fd) as fd:
                walk = Walk(fd, 0, size)
                for _ in walk:
                    pass
                yield number, walk

    def _uses(self) -> dict[int, tuple[float, int]]:
        """Last use and hits by the first 60 bits of the key."""
        found: dict[int, tuple[float, int]] = {}
        for number, size in files.segments(self._root.fd).items():
            with suppress(OSError), files.reading(files.segment_name(number), self._root.fd) as fd:
                for digits, at, hits in _all_uses(fd, size, self._root):
                    found[digits] = float(at), found.get(digits, (0.0, 0))[1] + hits
        return found


def _all_uses(fd: int, size: int, root: Root) -> Iterator[tuple[int, int, int]]:
    for frame in Walk(fd, 0, size):
        if frame.kind == USES and frame.state != DEAD:
            yield from uses(frame, fd, root.signer)


def _as_json(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key.hex(),
        "path": entry.path,
        "stream": entry.stream,
        "content_type": entry.content_type,
        "stored_at": entry.stored_at,
        "model": entry.model,
        "has_usage": entry.has_usage,
        **_text("body", entry.body),
        **(_text("request", entry.request) if entry.request is not None else {}),
    }


def _text(name: str, data: bytes) -> dict[str, str]:
    """Readable where it is text, so that an export can be looked at and compared."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def from_json(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries of an export. Raises StateError where it is none."""
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
            known = number > 1 or value["format"] == EXPORT_FORMAT
            entry = _entry(value) if number > 1 else None
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"Line {number} is not one of an exported cache: {error!r}") from None
        if not known:
            raise StateError(f"This export is not of the format {EXPORT_FORMAT}.")
        if entry is not None:
            yield entry


def _entry(value: dict[str, Any]) -> Entry:
    def data(name: str) -> bytes | None:
        coded, text = value.get(f"{name}_base64"), value.get(name)
        if coded is not None:
            return base64.b64decode(coded, validate=True)
        return str(text).encode() if text is not None else None

    body = data("body")
    if body is None:
        raise ValueError("body")
    return Entry(
        key=bytes.fromhex(value["key"]),
        path=str(value["path"]),
        stream=bool(value["stream"]),
        content_type=str(value["content_type"]),
        body=body,
        stored_at=float(value["stored_at"]),
        model=str(value["model"]),
        has_usage=bool(value["has_usage"]),
        request=data("request"),
    )
