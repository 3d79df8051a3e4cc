"""Not the cache: a stored answer as bytes on the wire, in the form that was asked for.

One entry serves both forms. The converted body with its fixed header lines is attached to the entry, so that the
next hit of that form is one look-up and one write.
"""

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from llmpod.cache import Cache, Entry, RequestKey
from llmpod.cache.assemble import assemble
from llmpod.cache.paths import converts, counts_on_request
from llmpod.cache.unroll import strip_usage, unroll
from llmpod.proxy.headers import SANDBOX

SMALL: Final = 65536  # bodies up to this size are converted on the event loop
_FORMS: Final = ("json", "sse", "sse+usage")
_JSON: Final = "application/json"
_SSE: Final = "text/event-stream; charset=utf-8"
SANDBOX_LINES: Final = b"".join(b"%b: %b\r\n" % item for item in SANDBOX)


def form_of(key: RequestKey) -> str:
    """The name of the form a request wants."""
    return _FORMS[key.stream + (key.stream and key.include_usage)]


def can_serve(entry: Entry, key: RequestKey) -> bool:
    """Whether the entry holds what this form needs: token counts exist only where the server sent them."""
    if entry.stream == key.stream:
        return not (key.stream and key.include_usage and not entry.has_usage)
    return converts(entry.path) and (entry.has_usage or not entry.stream)


def body_for(entry: Entry, key: RequestKey) -> tuple[str, bytes]:
    """Content type and body in the form asked for; see :func:`can_serve`.

    Raises:
        UpstreamInvalid: the stored frames cannot be put together.
    """
    if entry.stream and not key.stream:
        return _JSON, assemble(entry.body, path=entry.path)
    if key.stream and not entry.stream:
        return _SSE, unroll(entry.body, path=entry.path, include_usage=key.include_usage)
    if entry.stream and entry.has_usage and not key.include_usage and counts_on_request(entry.path):
        return entry.content_type, strip_usage(entry.body)
    return entry.content_type, entry.body


def render(entry: Entry, key: RequestKey) -> bytes:
    """Everything of a hit that does not change with time: the end of the header, and the body."""
    content_type, body = body_for(entry, key)
    stream_lines = b"x-accel-buffering: no\r\n" if key.stream else b""
    tag = (
        entry.etag.encode()
        if body is entry.body
        else b'W/%b-%b"' % (entry.etag.encode()[:-1], form_of(key).encode())
    )
    return (
        b"content-type: %b\r\ncontent-length: %d\r\nx-cache: HIT\r\nx-cache-reason: stored\r\netag: %b\r\n"
        b"x-content-type-options: nosniff\r\n%b%b\r\n"
        % (content_type.encode("latin-1"), len(body), tag, SANDBOX_LINES, stream_lines)
    ) + body


class Hits:
    """Finds stored answers and writes them. The hot path: microseconds, no await.

    Args:
        cache: where they are.
        clock: seconds since the epoch.
    """

    def __init__(self, cache: Cache, *, clock: Callable[[], float] = time.time) -> None:
        self._cache = cache
        self._clock = clock
        self._second = 0
        self._date = b""

    def at_once(self, key: RequestKey) -> tuple[bytes, Entry] | None:
        """The whole HTTP answer from memory; None when that is not possible without waiting."""
        entry = self._cache.peek(key.digest)
        if entry is None or not can_serve(entry, key):
            return None
        rendered = entry.prebuilt.get(form_of(key))
        if rendered is None:
            if len(entry.body) > SMALL:
                return None
            rendered = self.rendered(entry, key)
        return self.answer(entry, rendered), entry

    async def find(self, key: RequestKey) -> Entry | None:
        """The entry, from memory or disk; see :func:`can_serve`."""
        return await self._cache.get(key.digest)

    def rendered(self, entry: Entry, key: RequestKey) -> bytes:
        """As :func:`render`, remembered with the entry. Raises UpstreamInvalid."""
        rendered = entry.prebuilt.get(form_of(key))
        if rendered is None:
            rendered = render(entry, key)
            self.remember(entry, key, rendered)
        return rendered

    def remember(self, entry: Entry, key: RequestKey, rendered: bytes) -> None:
        """Keep a rendered form with its entry, within the memory tier's bound."""
        self._cache.attach(entry, form_of(key), rendered)

    def answer(self, entry: Entry, rendered: bytes) -> bytes:
        """The bytes of the answer now: with its date and age."""
        now = self._clock()
        if int(now) != self._second:
            self._second = int(now)
            self._date = formatdate(now, usegmt=True).encode()
        age = max(0, int(now - entry.stored_at))
        return b"HTTP/1.1 200 OK\r\ndate: %b\r\nage: %d\r\n%b" % (self._date, age, rendered)

    def age(self, entry: Entry) -> float:
        """Seconds since the entry was stored."""
        return max(0.0, self._clock() - entry.stored_at)


def split(rendered: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """A rendered hit as header fields and body, for the way through ASGI."""
    head, _, body = rendered.partition(b"\r\n\r\n")
    fields = [line.partition(b": ") for line in head.split(b"\r\n")]
    return [
        (name, value)
        for name, _, value in fields
        if not name.startswith(b"x-cache") and (name, value) not in SANDBOX
    ], body
