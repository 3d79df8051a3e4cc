"""Not a socket: how anybody who may write a cache directory asks the processes that use it to forget entries.

Files of the directory carry it, so it works whatever address a proxy has, for several proxies of one directory at
once, and asks for no right beyond the one to remove the files.

| file | by | says |
|---|---|---|
| ``purge-NONCE`` | ``ask`` | JSON: the keys to forget, null for all; removed when answered, or given up |
| ``purged-NONCE`` | the process that writes here | the same, and how many it knew; removed after a minute |

A process that only reads here forgets at either, once.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from llmpod.cache import files
from llmpod.cache.root import Root

ASKED: Final = "purge-"
DONE: Final = "purged-"
MOST_KEYS: Final = 4096  # in one notice
_MOST_BYTES: Final = 2**20
_KEPT_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05


class Notice(NamedTuple):
    """What is to be forgotten: ``keys`` None stands for everything."""

    nonce: str
    keys: tuple[bytes, ...] | None
    done: bool = False
    known: int = 0


# --- who asks ------------------------------------------------------------------------------------------------
def ask(
    root: Root,
    keys: Sequence[bytes] | None,
    *,
    patience: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int | None:
    """Has entries forgotten; how many there were, or None where nobody answered in time (it is taken back then).

    Args:
        root: the directory.
        keys: of the entries; None: all.
        patience: seconds for all of it.

    Raises:
        OSError: the directory cannot be written.
    """
    parts = [None] if keys is None else [keys[at : at + MOST_KEYS] for at in range(0, len(keys), MOST_KEYS)]
    limit, known = clock() + patience, 0
    for part in parts:
        nonce = secrets.token_hex(8)
        files.replace(ASKED + nonce, root.fd, [_text(part)])
        while (answer := _read(DONE + nonce, root.fd)) is None:
            if clock() > limit:
                files.unlink(ASKED + nonce, root.fd)
                return None
            sleep(_LOOK_SECONDS)
        known += answer.known
    return known


# --- who is asked --------------------------------------------------------------------------------------------
def pending(root: Root, now: float) -> list[Notice]:
    """The notices in a directory, oldest first. Never raises: what is none, or cannot be read, is passed over.

    Args:
        root: the directory; where it is ours, answers that were there for a minute are removed.
        now: seconds since the epoch.
    """
    with suppress(OSError):
        return list(_notices(root, now))
    return []


def _notices(root: Root, now: float) -> Iterator[Notice]:
    for name in files.beginning(root.fd, (ASKED, DONE)):
        with suppress(OSError):
            written = os.stat(name, dir_fd=root.fd, follow_symlinks=False).st_mtime
            if root.owner and name.startswith(DONE) and not -_KEPT_SECONDS < now - written < _KEPT_SECONDS:
                files.unlink(name, root.fd)
                continue
        notice = _read(name, root.fd)
        if notice is not None:
            yield notice


def answer(root: Root, notice: Notice, known: int) -> None:
    """Says that a notice was carried out. Raises OSError."""
    files.replace(DONE + notice.nonce, root.fd, [_text(notice.keys, known)])
    files.unlink(ASKED + notice.nonce, root.fd)


# --- on disk -------------------------------------------------------------------------------------------------
def _text(keys: Sequence[bytes] | None, known: int | None = None) -> bytes:
    named = None if keys is None else [key.hex() for key in keys]
    return json.dumps({"keys": named, "known": known}).encode()


def _read(name: str, root: int) -> Notice | None:
    done = name.startswith(DONE)
    try:
        with files.reading(name, root) as fd:
            value = json.loads(os.read(fd, _MOST_BYTES))
        keys = value["keys"]
        named = None if keys is None else tuple(bytes.fromhex(key) for key in keys)
        return Notice(name.partition("-")[2], named, done, int(value["known"] or 0))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
