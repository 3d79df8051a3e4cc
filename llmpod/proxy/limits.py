"""Not a queue (slots.py): how often a caller may ask and how many tokens it may use, by the minute and by the day.

A caller is a key, or an address where there are no keys. A bucket refills steadily and holds a minute's worth, so
that the wait a refusal names is when the next request will be served. Days are UTC, counted since the proxy's start.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from llmpod.config import CallerKey, ProxySettings
from llmpod.errors import Overloaded
from llmpod.proxy.ask import Ask

MAX_CALLERS: Final = 4096
DAY: Final = 24 * 3600
BYTES_PER_TOKEN: Final = 4  # of English text, where a server does not say how many it was
EVENT_BYTES: Final = 200  # of an event around its text (166 to 259 in recordings of three servers)
TAIL: Final = 4096  # bytes at the end of an answer in which its usage stands
_TOTAL: Final = re.compile(rb'"total_tokens"\s*:\s*(\d{1,12})')


class RateLimited(Overloaded):
    """This caller asked too often or used too much; ``retry_after`` is when that is over."""

    status: ClassVar[int] = 429
    type: ClassVar[str] = "rate_limit_error"
    code: ClassVar[str] = "rate_limit_exceeded"


class Bucket:
    """So many a minute. It may be overdrawn by what is known only afterwards."""

    __slots__ = ("_at", "_level", "_rate", "_size")

    def __init__(self, per_minute: int, now: float) -> None:
        self._rate = per_minute / 60.0
        self._size = self._level = float(per_minute)
        self._at = now

    def wait(self, now: float, *, wanted: float = 1.0) -> float:
        """Seconds until so many can be taken; 0 now."""
        self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (wanted - self._level) / self._rate)

    def take(self, count: float) -> None:
        self._level -= count


@dataclass(slots=True)
class _Account:
    """What one caller has used."""

    requests: Bucket | None
    tokens: Bucket | None
    day: int = 0
    requests_today: int = 0
    tokens_today: int = 0


class Meter:
    """Counts the tokens of one answer while it passes."""

    __slots__ = ("_bytes", "_events", "_said", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        self._bytes = 0
        self._events = 0
        self._said: int | None = None

    def hear(self, counts: bytes) -> None:
        """What the server said of it, and the client is not given."""
        if said := _TOTAL.findall(counts[-TAIL:]):
            self._said = int(said[-1])

    def see(self, chunk: bytes) -> None:
        """The next bytes that the client is given."""
        self._bytes += len(chunk)
        self._events += chunk.count(b"\n\n") + chunk.count(b"\n\r\n")
        self._tail = (self._tail + chunk)[-TAIL:] if len(chunk) < TAIL else chunk[-TAIL:]

    def tokens(self, asked: int) -> int:
        """As the server said, else about as many as that much text has: in a stream, one an event or more.

        Args:
            asked: bytes of the request.
        """
        if self._said is None:
            self.hear(self._tail)
        if self._said is not None:
            return self._said
        text = self._bytes - self._events * EVENT_BYTES
        return asked // BYTES_PER_TOKEN + max(self._events, text // BYTES_PER_TOKEN)


class Limiter:
    """Says no to who asks too often.

    Args:
        settings: the limits of those who have none of their own.
        spares: whose requests are not limited: those of a warm-up would use up what a caller at this address may send.
        monotonic: seconds, for the minutes.
        clock: seconds since the epoch, for the days.

    Attributes:
        always: there are limits for everybody; else only keys have some.
    """

    def __init__(
        self,
        settings: ProxySettings,
        *,
        spares: Callable[[Ask], bool] = lambda _: False,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spares = spares
        self._now = monotonic
        self._clock = clock
        self._accounts: dict[tuple[str, CallerKey | None], _Account] = {}
        self._requests: int | None = None
        self._tokens: int | None = None
        self.adopt(settings)

    def adopt(self, settings: ProxySettings) -> None:
        """Other limits from now on. What was used of a day stays used; minutes with another limit begin anew."""
        before = self._requests, self._tokens
        self._requests, self._tokens = settings.requests_per_minute, settings.tokens_per_minute
        self.always = bool(self._requests or self._tokens)
        if before != (self._requests, self._tokens):
            for (_, key), account in self._accounts.items():
                account.requests, account.tokens = self._buckets(key, self._now())

    def refusal(self, ask: Ask) -> RateLimited | None:
        """Why this request is not served now; a request that may be is counted."""
        if self._spares(ask):
            return None
        key, now = ask.leave.key, self._now()
        account = self._account(ask, now)
        if key is not None and (full := self._spent(key, account)):
            left = DAY - self._clock() % DAY
            return RateLimited(f"This key's {full} of today are used up.", retry_after=left)
        buckets = (("requests", account.requests), ("tokens", account.tokens))
        waits = [(bucket.wait(now), what) for what, bucket in buckets if bucket is not None]
        wait, what = max(waits, default=(0.0, ""))
        if wait:
            return RateLimited(f"Too many {what} a minute.", retry_after=wait)
        if account.requests is not None:
            account.requests.take(1)
        account.requests_today += 1
        return None

    def meters(self, ask: Ask) -> bool:
        """Whether the tokens of the answer count."""
        key = ask.leave.key
        limited = self._tokens or (key is not None and (key.tokens_per_minute or key.tokens_per_day))
        return bool(limited) and ask.method == "POST" and not self._spares(ask)

    def used(self, ask: Ask, tokens: int) -> None:
        """An answer is over and took so many tokens."""
        account = self._account(ask, self._now())
        account.tokens_today += tokens
        if account.tokens is not None:
            account.tokens.take(tokens)

    def _spent(self, key: CallerKey, account: _Account) -> str:
        today = int(self._clock()) // DAY
        if account.day != today:
            account.day, account.requests_today, account.tokens_today = today, 0, 0
        if key.requests_per_day is not None and account.requests_today >= key.requests_per_day:
            return "requests"
        spent = key.tokens_per_day is not None and account.tokens_today >= key.tokens_per_day
        return "tokens" if spent else ""

    def _account(self, ask: Ask, now: float) -> _Account:
        """The caller's account; of too many, the one that was silent longest is forgotten."""
        key = ask.leave.key
        name = (ask.leave.caller or ask.client, key)
        account = self._accounts.pop(name, None)
        if account is None:
            account = _Account(*self._buckets(key, now))
        self._accounts[name] = account
        if len(self._accounts) > MAX_CALLERS:
            del self._accounts[next(iter(self._accounts))]
        return account

    def _buckets(self, key: CallerKey | None, now: float) -> tuple[Bucket | None, Bucket | None]:
        """For requests and for tokens; a key's own limits come before those for everybody."""
        requests = (key.requests_per_minute if key else None) or self._requests
        tokens = (key.tokens_per_minute if key else None) or self._tokens
        return Bucket(requests, now) if requests else None, Bucket(tokens, now) if tokens else None
