"""Not the cache: what a request says about caching, and what the configured mode makes of it. Pure.

``Cache-Control`` (RFC 9111, 5.2.1): ``no-cache``, ``no-store``, ``max-age`` and ``only-if-cached`` are done as asked;
``min-fresh``, ``max-stale`` and ``no-transform`` change nothing, since nothing stale is served or transformed.
``If-None-Match`` (RFC 9110, 13.1.2) is compared weakly; a match is answered with 304 although the method is POST,
because to these paths a POST is a query, which the RFC's 412 for other methods was not made for.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from llmpod.errors import BadRequest, LlmpodError
from llmpod.memo import remembered

MOST_EVENTS: Final = 10_000
PACE_FIELD: Final = b"x-cache-pace"
RECORD, REPLAY_ONLY = "record", "replay-only"
_Fields = Iterable[tuple[bytes, bytes]]


class NotCached(LlmpodError):
    """Only a stored answer was wanted (``only-if-cached``, or the mode ``replay-only``), and there is none.

    Trying again cannot help, and SDKs are told so (``x-should-retry``).
    """

    status: ClassVar[int] = 504
    type: ClassVar[str] = "invalid_request_error"
    code: ClassVar[str] = "not_cached"


@dataclass(frozen=True, slots=True)
class Wish:
    """What one request wants. ``max_age`` in seconds; None: any age will do."""

    read: bool = True
    store: bool = True
    only_stored: bool = False
    max_age: int | None = None
    reason: str = ""

    def accepts(self, age: float) -> bool:
        """Whether a stored answer of this age may be sent."""
        return self.read and (self.max_age is None or age <= self.max_age)

    def not_cached(self) -> NotCached:
        """What to say where only a stored answer was wanted."""
        who = (
            "The proxy only replays" if self.reason == REPLAY_ONLY else "The request asks for a stored answer"
        )
        return NotCached(
            f"{who}, and no answer to this request is stored.",
            hint="`python3 manage_pod.py cache why REQUEST.json` names the nearest one and what differs.",
        )


ANYTHING: Final = Wish()
_REPLAY: Final = Wish(only_stored=True, reason=REPLAY_ONLY)


def under(mode: str, wish: Wish) -> Wish:
    """The wish in a mode: ``record`` always asks anew; ``replay-only`` has nothing but what is stored, at any age."""
    if mode == RECORD:
        return replace(wish, read=False, reason=wish.reason or RECORD)
    return _REPLAY if mode == REPLAY_ONLY else wish


@remembered(128)
def parse(cache_control: bytes) -> Wish:
    """The wish in one field's value; unknown and malformed directives are ignored, as the RFC asks."""
    words = [word.strip().lower() for word in cache_control.decode("latin-1").split(",")]
    if "no-store" in words:
        return Wish(read=False, store=False, only_stored="only-if-cached" in words, reason="no-store")
    ages = [word.partition("=")[2].strip('" ') for word in words if word.startswith("max-age=")]
    age = min(
        (int(a[:18]) for a in ages if a.isascii() and a.isdigit()), default=None
    )  # more is for ever, too
    return Wish(
        read="no-cache" not in words,
        only_stored="only-if-cached" in words,
        max_age=age,
        reason="no-cache" if "no-cache" in words else "",
    )


def wish_of(headers: _Fields) -> Wish:
    """The wish of a request."""
    values = [value for name, value in headers if name == b"cache-control"]
    return parse(b",".join(values)) if values else ANYTHING


def has_already(headers: _Fields, tag: bytes) -> bool:
    """Whether ``If-None-Match`` says that the client has the representation with this entity tag."""
    known = [
        word.strip() for name, value in headers if name == b"if-none-match" for word in value.split(b",")
    ]
    return b"*" in known or tag.removeprefix(b"W/") in {word.removeprefix(b"W/") for word in known}


def pace_of(headers: _Fields, usual: int) -> int:
    """Events a second at which a stored stream is wanted (``X-Cache-Pace``); 0: at once. Raises BadRequest."""
    value = next((value for name, value in headers if name == PACE_FIELD), None)
    if value is None:
        return usual
    if not value.isdigit() or len(value) > 5 or int(value) > MOST_EVENTS:
        raise BadRequest(f"X-Cache-Pace is a number of events a second, 0 (at once) to {MOST_EVENTS}.")
    return int(value)
