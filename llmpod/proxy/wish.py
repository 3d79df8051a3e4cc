"""Not the cache: what the client says about caching in its ``Cache-Control`` (RFC 9111, 5.2.1). Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final

from llmpod.errors import LlmpodError


class NotCached(LlmpodError):
    """The client wanted a stored answer or none (``only-if-cached``), and there is none."""

    status: ClassVar[int] = 504
    type: ClassVar[str] = "invalid_request_error"
    code: ClassVar[str] = "not_cached"


@dataclass(frozen=True, slots=True)
class Wish:
    """Directives of one request. ``max_age`` in seconds; None: any age will do."""

    read: bool = True
    store: bool = True
    only_stored: bool = False
    max_age: int | None = None
    reason: str = ""

    def accepts(self, age: float) -> bool:
        """Whether a stored answer of this age may be sent."""
        return self.read and (self.max_age is None or age <= self.max_age)


ANYTHING: Final = Wish()


@lru_cache(maxsize=128)
def parse(cache_control: bytes) -> Wish:
    """The wish in one field's value; unknown and malformed directives are ignored, as the RFC asks."""
    words = [word.strip().lower() for word in cache_control.decode("latin-1").split(",")]
    if "no-store" in words:
        return Wish(read=False, store=False, only_stored="only-if-cached" in words, reason="no-store")
    ages = [word.partition("=")[2].strip('" ') for word in words if word.startswith("max-age=")]
    age = min((int(a) for a in ages if a.isascii() and a.isdigit()), default=None)
    return Wish(
        read="no-cache" not in words,
        only_stored="only-if-cached" in words,
        max_age=age,
        reason="no-cache" if "no-cache" in words else "",
    )


def wish_of(headers: Iterable[tuple[bytes, bytes]]) -> Wish:
    """The wish of a request."""
    values = [value for name, value in headers if name == b"cache-control"]
    return parse(b",".join(values)) if values else ANYTHING
