"""Not a policy engine: which header fields cross the proxy, in either direction. Pure.

Allow-lists both ways (T12, T17): a field that is not named here does not cross, so nothing hop-by-hop can, by
whatever name a ``Connection`` field might try. Framing fields are always written anew.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from llmpod.memo import remembered

Header = tuple[bytes, bytes]
Headers = list[Header]

CREDENTIALS: Final = frozenset({b"authorization", b"x-api-key"})
SECRETS: Final = CREDENTIALS | {b"x-api-secret"}  # in which callers may bring a key of ours
_TO_UPSTREAM: Final = frozenset({b"content-type", b"accept", b"x-request-id", b"idempotency-key"})
_TO_UPSTREAM_PREFIXES: Final = (b"openai-", b"anthropic-")
_TO_CLIENT: Final = frozenset(
    {
        *(b"content-type", b"content-language", b"content-disposition"),
        *(b"retry-after", b"retry-after-ms", b"x-request-id", b"x-should-retry"),
    }
)
_TO_CLIENT_PREFIXES: Final = (b"openai-", b"anthropic-", b"x-ratelimit-")
# what a browser would not run or render as a page of ours (T12)
_SAFE_TYPES: Final = frozenset(
    {b"application/json", b"text/event-stream", b"text/plain", b"application/octet-stream", b"text/vtt"}
)
_SAFE_FAMILIES: Final = (b"audio/", b"video/", b"image/png", b"image/jpeg", b"image/webp")
# fields that an answer has once, and of those the ones that have a single good value
_ONLY: Final = {b"transfer-encoding": b"chunked", b"content-encoding": b"identity"}
_ONCE: Final = frozenset({b"content-type", b"content-length", *_ONLY})
NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
# on every answer that may carry a model's words: whatever a browser takes them for, it may do nothing with them
SANDBOX: Final = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def to_upstream(headers: Iterable[tuple[bytes, bytes]], *, credentials: bool) -> Headers:
    """The client's fields that the model server may see.

    Args:
        headers: lower-case names, as received.
        credentials: pass the client's own credential on (only to an endpoint that a person configured).
    """
    return [item for item in headers if _goes_upstream(item[0]) or (credentials and item[0] in CREDENTIALS)]


def to_client(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The model server's fields that the client may see, each once; a dangerous content type becomes opaque bytes."""
    kept = {
        name: value if name != b"content-type" else safe_type(value)
        for name, value in headers
        if _goes_to_client(name) and value.isascii()
    }
    return [*kept.items(), NOSNIFF]


def fault(status: int, headers: Iterable[tuple[bytes, bytes]]) -> str:
    """What is wrong with the head of a model server's answer, so that its body is not read; empty: nothing.

    We ask for no encoding, so an encoded answer is a mistake or a bomb; nobody here unpacks it (T13).
    """
    if not 200 <= status < 600:
        return f"has a status that there is not ({status})"
    seen: set[bytes] = set()
    for name, value in headers:
        if name not in _ONCE:
            continue
        if name in seen:
            return f"has two fields {name.decode()}"
        seen.add(name)
        if (good := _ONLY.get(name)) is not None and value.strip().lower() != good:
            return (
                f"comes with a {name.decode()} that nobody asked for: {value[:40].decode('ascii', 'replace')}"
            )
    return ""


@remembered(512)
def _goes_upstream(name: bytes) -> bool:
    return name in _TO_UPSTREAM or name.startswith(_TO_UPSTREAM_PREFIXES)


@remembered(512)
def _goes_to_client(name: bytes) -> bool:
    return name in _TO_CLIENT or name.startswith(_TO_CLIENT_PREFIXES)


@remembered(256)
def media_type(value: bytes) -> bytes:
    """``application/json`` out of ``Application/JSON; charset=utf-8``."""
    return value.partition(b";")[0].strip().lower()


@remembered(256)
def is_json(value: bytes) -> bool:
    """Whether a content type is JSON or a ``+json`` type."""
    kind = media_type(value)
    return kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json"))


@remembered(256)
def is_stream(value: bytes) -> bool:
    """Whether a content type is a stream of events."""
    return media_type(value) == b"text/event-stream"


@remembered(256)
def safe_type(value: bytes) -> bytes:
    """The content type itself, or ``application/octet-stream`` for one that a browser might run."""
    kind = media_type(value)
    if kind in _SAFE_TYPES or kind.startswith(_SAFE_FAMILIES) or is_json(kind):
        return value
    return b"application/octet-stream"


@lru_cache(maxsize=64)
def lines(fields: tuple[Header, ...]) -> bytes:
    """Header fields as they are sent; remembered, so for those that many answers share."""
    return b"".join([b"%b: %b\r\n" % item for item in fields])


def get(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The first value of a field, or empty."""
    for key, value in headers:
        if key == name:
            return value
    return b""
