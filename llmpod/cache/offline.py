"""Not the cache that serves: changes a cache directory from outside, for ``cache purge|import``.

Takes its lock; where a proxy has it, that proxy is asked to purge, and imports have to wait.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from llmpod.cache import files, notices
from llmpod.cache.cold import length_of, offset_of, short, slot_of
from llmpod.cache.entry import Corrupt, Entry, decode, encode, erased
from llmpod.cache.inspect import Contents, from_json
from llmpod.cache.replay import Replay
from llmpod.cache.root import Root, Unusable, look_into, open_root, why
from llmpod.errors import Busy, StateError

PATIENCE: Final = 10.0
_BATCH: Final = 512


def _locked(directory: Path, mac_key: bytes) -> tuple[Root, Replay]:
    try:
        root = open_root(directory, mac_key)
        if not root.owner:
            raise Busy(f"A proxy is using {directory}.", hint="Stop that proxy first, then run this again.")
        replay = Replay(root)
        replay.run()
    except Unusable as error:
        raise StateError(str(error)) from None
    except OSError as error:
        raise StateError(f"{directory} cannot be read: {why(error)}") from None
    return root, replay


def purge(
    directory: Path,
    wanted: Callable[[Entry], bool] | None = None,
    *,
    mac_key: bytes = b"",
    patience: float = PATIENCE,
) -> int:
    """Removes entries for good: what they held is overwritten, or its file removed.

    A proxy that uses the directory does it itself, in memory and on disk; so do those that only read there.

    Args:
        directory: of a cache.
        wanted: which ones to remove; None: all.
        mac_key: as the cache was opened with; empty for the key in the directory.
        patience: seconds that a proxy gets for it.

    Returns:
        How many.

    Raises:
        Busy: a proxy uses the directory, and does not answer.
        StateError: it is no cache, or cannot be read or written.
    """
    try:
        look_into(directory, mac_key)  # purging makes no cache where there is none
        root, replay = _locked(directory, mac_key)
    except Unusable as error:
        raise StateError(str(error)) from None
    except Busy:
        return _asked(directory, wanted, mac_key, patience)
    try:
        files.unlink(files.SNAPSHOT, root.fd)
        if wanted is None:
            for number in files.segments(root.fd):
                files.unlink(files.segment_name(number), root.fd)
            return len(replay.places)
        return sum(_purged(root, replay, place, wanted) for place in replay.places.values())
    except OSError as error:
        raise StateError(f"{directory} cannot be written: {why(error)}") from None


def _asked(directory: Path, wanted: Callable[[Entry], bool] | None, mac_key: bytes, patience: float) -> int:
    keys = None
    if wanted is not None:
        entries = (stored.entry for stored in Contents(directory, mac_key=mac_key).entries())
        keys = [entry.key for entry in entries if wanted(entry)]
    try:
        known = notices.ask(look_into(directory, mac_key), keys, patience=patience)
    except (OSError, Unusable) as error:
        reason = why(error) if isinstance(error, OSError) else str(error)
        raise StateError(f"{directory} cannot be written: {reason}") from None
    if known is None:
        raise Busy(
            f"The proxy that uses {directory} did not answer within {patience:.0f} s.", hint="Stop it first."
        )
    return known


def _purged(root: Root, replay: Replay, place: int, wanted: Callable[[Entry], bool]) -> bool:
    name, offset = files.segment_name(replay.segments[slot_of(place)].number), offset_of(place)
    with files.reading(name, root.fd) as fd:
        record = os.pread(fd, length_of(place), offset)
    with suppress(Corrupt):
        if not wanted(decode(record, None, root.signer)):
            return False
        files.overwrite(name, root.fd, erased(record), offset)
        return True
    return False


def import_lines(
    directory: Path, lines: Iterable[str], *, max_bytes: int, mac_key: bytes = b""
) -> tuple[int, int]:
    """Adds the entries of an export, as the most recently used ones; what is there already stays as it is.

    Args:
        directory: of a cache; made when it is not there.
        lines: of the export.
        max_bytes: of all files in the directory together.
        mac_key: as the cache is opened with; empty for the key in the directory.

    Returns:
        How many were added, and how many were not: there already, or without room.

    Raises:
        Busy: a proxy uses the directory.
        StateError: it cannot be read or written, or the lines are no export.
    """
    root, replay = _locked(directory, mac_key)
    sizes = files.segments(root.fd)
    room = max_bytes - max_bytes // 8 - sum(sizes.values()) - replay.snapshot_bytes
    number, added, left = max([replay.number, *sizes]) + 1, 0, 0
    parts: list[bytes] = []
    known = set(replay.places)
    try:
        for entry in from_json(lines):
            record = encode(entry, entry.kept_request, root.signer, pack=True)
            if short(entry.key) in known or len(record) > room:
                left += 1
                continue
            known.add(short(entry.key))
            parts.append(record)
            room -= len(record)
            added += 1
            if len(parts) == _BATCH:
                files.fill(files.segment_name(number), root.fd, parts)
                number, parts = number + 1, []
        if parts:
            files.fill(files.segment_name(number), root.fd, parts)
    except OSError as error:
        raise StateError(f"{directory} cannot be written: {why(error)}") from None
    return added, left
