"""Not the keys themselves, which nobody keeps: who may call the proxy, as it stands in ``keys.json``.

A key is random and long, so its SHA-256 is all that is needed to know it again, and useless to who reads the file.
"""

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from llmpod.errors import ConfigError

SCHEMA: Final = 1
PREFIX: Final = "sk-local-"
MAX_BYTES: Final = 2**20
FILE_NAME: Final = "keys.json"


class Scope(StrEnum):
    """What a key is good for."""

    INFER = "infer"
    METRICS = "metrics"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class CallerKey:
    """One key, as it is kept.

    Args:
        id: stands in logs; names the caller's own part of the cache.
        name: for people.
        digest: SHA-256 of the key, hex.
        scopes: what it is good for.
        models: the only ``model`` values it may ask for; empty: any.
        created: seconds since the epoch.
        expires: the same; None: never.
        requests_per_minute: None: as the proxy's own limit.
        tokens_per_minute: None: as the proxy's own limit.
        requests_per_day: budget of a UTC day; None: none.
        tokens_per_day: budget of a UTC day; None: none.
        usd_per_day: the same in money; see ``proxy/costs.py`` for what a request costs.
        usd_per_month: budget of a UTC month; None: none.
    """

    id: str
    name: str
    digest: str
    scopes: tuple[Scope, ...] = (Scope.INFER,)
    models: tuple[str, ...] = ()
    created: float = 0.0
    expires: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_day: int | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None


def new_key() -> str:
    """256 random bits in a spelling that clients take for a key."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> tuple[CallerKey, ...]:
    """The keys in a file; none when there is no file.

    Raises:
        ConfigError: unreadable, not ours, open to others, or not what we write.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ()
    except OSError as e:
        raise ConfigError(f"Cannot read {path}: {e.strerror}.") from None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or status.st_uid not in (os.getuid(), 0):
            raise ConfigError(f"Others may read or own {path}.", hint=f"Run: chmod 600 {path}")
        content = file.read(MAX_BYTES + 1)
    try:
        document = json.loads(content[:MAX_BYTES])
        if document["schema"] != SCHEMA:
            raise ConfigError(f"{path} was written by another version (schema {document['schema']}).")
        return tuple(_key(entry) for entry in document["keys"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigError(
            f"{path} is damaged.", hint="Restore it, or remove it and add the keys anew."
        ) from None


def written(keys: Sequence[CallerKey]) -> str:
    """The text of the file."""
    return json.dumps({"schema": SCHEMA, "keys": [asdict(key) for key in keys]}, indent=1) + "\n"


def _key(entry: dict[str, Any]) -> CallerKey:
    values = {**entry, "scopes": tuple(map(Scope, entry["scopes"])), "models": tuple(entry["models"])}
    key = CallerKey(**values)
    if len(bytes.fromhex(key.digest)) != 32 or not isinstance(key.id, str):
        raise ValueError(key.id)
    return key
