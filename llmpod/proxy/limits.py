"""Not a queue (slots.py): how often callers may ask and how many tokens they may use, by the minute and by the day.

A limit counts for the paths of a pattern, or for one model, and is shared by those whom it names: one caller (a key,
or an address where there are no keys), one address, or everybody. All that match a request must allow it. A bucket
refills steadily and holds a minute's worth, so that the wait a refusal names is when the next request will be served.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

from llmpod.config import CallerKey, ProxySettings
from llmpod.config.rates import Per, RateLimit
from llmpod.errors import Overloaded
from llmpod.lifecycle.tally import Used
from llmpod.memo import LONGEST
from llmpod.proxy.accounts import DAY, Accounts
from llmpod.proxy.ask import Ask
from llmpod.proxy.costs import Bill, Book
from llmpod.proxy.meter import Meter, Tokens
from llmpod.proxy.peer import source_of
from llmpod.proxy.route import read_plainly, without_name

MAX_ACCOUNTS: Final = 4096
MAX_PATHS: Final = 1024
SPECK: Final = 1e-6  # seconds: floating point, no wait
_WHOSE: Final = {Per.CALLER: "", Per.ADDRESS: " from your address", Per.EVERYBODY: " from all callers"}


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
        wait = (wanted - self._level) / self._rate
        return wait if wait > SPECK else 0.0

    def take(self, count: float) -> None:
        self._level -= count


class _Rule(NamedTuple):
    """One row of the table of limits."""

    number: int
    beginning: str
    whole: bool  # the path ends there
    per: Per
    requests: int | None
    tokens: int | None
    model: str = ""

    @classmethod
    def of(cls, number: int, pattern: str, limit: RateLimit, model: str = "") -> "_Rule":
        beginning = pattern.removesuffix("*")
        return cls(
            number,
            beginning,
            beginning == pattern,
            limit.per,
            limit.requests_per_minute,
            limit.tokens_per_minute,
            model,
        )

    def matches(self, path: str) -> bool:
        return path == self.beginning if self.whole else path.startswith(self.beginning)

    @property
    def words(self) -> str:
        """What it limits, for people."""
        where = f" to {self.beginning}{'' if self.whole else '*'}" if self.beginning else ""
        where += f" for {self.model}" if self.model else ""
        return f"{where}{_WHOSE[self.per]}"


@dataclass(slots=True)
class _Account:
    """What those who share one limit have left of it."""

    rule: _Rule
    requests: Bucket | None
    tokens: Bucket | None

    def wait(self, now: float) -> tuple[float, str]:
        """How long until it allows one more request, and because of what."""
        waits = [
            (bucket.wait(now), what)
            for what, bucket in (("requests", self.requests), ("tokens", self.tokens))
            if bucket is not None
        ]
        return max(waits, default=(0.0, ""))


class Limiter:
    """Says no to who asks too often.

    Args:
        settings: the limits; keys may have others.
        accounts: what was used with each key.
        spares: whose requests are not limited: those of a warm-up would use up what a caller at this address may send.
        monotonic: seconds, for the minutes.
        clock: seconds since the epoch, for the days.

    Attributes:
        always: there are limits for everybody; else only keys have some.
    """

    def __init__(
        self,
        settings: ProxySettings,
        accounts: Accounts,
        *,
        spares: Callable[[Ask], bool] = lambda _: False,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._used = accounts
        self._book = Book(settings.token_prices, accounts, monotonic=monotonic, clock=clock)
        self._spares = spares
        self._now = monotonic
        self._clock = clock
        self._rows: list[_Rule] = []
        self.adopt(settings)

    def adopt(self, settings: ProxySettings) -> None:
        """Other limits and prices from now on. What was used of a day stays used; the minutes begin anew."""
        self._book.prices = settings.token_prices
        general = RateLimit.model_construct(
            requests_per_minute=settings.requests_per_minute, tokens_per_minute=settings.tokens_per_minute
        )
        limits = [("*", general), *settings.rate_limits.items()]
        rows = [_Rule.of(number, *row) for number, row in enumerate(limits)]
        models = enumerate(settings.model_limits.items(), start=len(rows))
        of_models = [_Rule.of(number, "*", limit, model) for number, (model, limit) in models]
        if [*rows, *of_models] == self._rows:
            return
        self._rows = [*rows, *of_models]
        self._general, *self._rules = rows
        self._of_models = {rule.model: rule for rule in of_models}
        self._by_path: dict[str, tuple[_Rule, ...]] = {}
        self._of_keys: dict[tuple[int | None, int | None], _Rule] = {}
        self._accounts: dict[tuple[int, str, int | None, int | None], _Account] = {}
        self.always = bool(self._general.requests or self._general.tokens or self._rules)

    def refusal(self, ask: Ask) -> RateLimited | None:
        """Why this request is not served now; a request that may be is counted."""
        if self._spares(ask):
            return None
        key, now = ask.leave.key, self._now()
        tally = self._used.of(key) if key is not None else None
        if key is not None and tally is not None and (full := _spent(key, tally.today)):
            left = DAY - self._clock() % DAY
            return RateLimited(f"This key's {full} of today are used up.", retry_after=left)
        accounts = self._those_of(ask, now)
        longest, words = 0.0, ""
        for account in accounts:
            wait, what = account.wait(now)
            if wait > longest:
                longest, words = wait, f"{what} a minute{account.rule.words}"
        if longest:
            return RateLimited(f"Too many {words}.", retry_after=longest)
        for account in accounts:
            if account.requests is not None:
                account.requests.take(1)
        if tally is not None:
            self._used.asked(tally)
        return None

    def admit(self, ask: Ask, model_key: str, meter: Meter | None) -> None:
        """Count a request that has been found to be for this model.

        Raises:
            RateLimited: the model's own limit does not allow it. It takes nothing of any limit then.
        """
        rule = self._of_models.get(model_key)
        if rule is None or self._spares(ask):
            return
        now = self._now()
        account = self._account(rule, ask, now)
        wait, what = account.wait(now)
        if wait:
            self._give_back(ask, now)
            raise RateLimited(f"Too many {what} a minute{rule.words}.", retry_after=wait)
        if account.requests is not None:
            account.requests.take(1)
        if meter is not None:
            meter.model_key = model_key

    def _give_back(self, ask: Ask, now: float) -> None:
        """A request that ``refusal`` has counted is not served."""
        for account in self._those_of(ask, now):
            if account.requests is not None:
                account.requests.take(-1)
        if ask.leave.key is not None:
            self._used.unasked(self._used.of(ask.leave.key))

    def meter(self, ask: Ask) -> Meter | None:
        """What counts the tokens of the answer and its cost; None where they do not count."""
        if ask.method != "POST" or self._spares(ask):
            return None
        if (key := ask.leave.key) is not None:
            return Meter(Bill(self._book, key))
        rules = (self._general, *self._of_models.values(), *self._matching(ask.path))
        limited = any(rule.tokens for rule in rules)
        return Meter() if limited else None

    def used(self, ask: Ask, meter: Meter, *, counts: bool) -> None:
        """An answer is over; ``counts``: it took something, for it is no error and did not come from the cache."""
        tokens = meter.tokens(len(ask.body)) if counts else Tokens(0, 0)
        usd = meter.bill.close(*tokens) if meter.bill is not None else None
        if not counts:
            return
        now = self._now()
        rule = self._of_models.get(meter.model_key)
        of_model = [self._account(rule, ask, now)] if rule is not None else []
        for account in (*self._those_of(ask, now), *of_model):
            if account.tokens is not None:
                account.tokens.take(tokens.total)
        if (key := ask.leave.key) is not None:
            self._used.answered(key, tokens.total, usd)

    def _matching(self, path: str) -> tuple[_Rule, ...]:
        """The rules for a path, however it is spelled, and whatever name of a model stands before it."""
        found = self._by_path.get(path)
        if found is None:
            if len(self._by_path) >= MAX_PATHS:
                self._by_path.clear()
            known = {read_plainly(path), without_name(path)}
            found = tuple(rule for rule in self._rules if any(map(rule.matches, known)))
            if len(path) <= LONGEST:
                self._by_path[path] = found
        return found

    def _those_of(self, ask: Ask, now: float) -> list[_Account]:
        """The accounts from which a request takes something."""
        key = ask.leave.key
        general = self._general if key is None else self._own(key)
        found = [self._account(general, ask, now)] if general.requests or general.tokens else []
        if self._rules:
            found += [self._account(rule, ask, now) for rule in self._matching(ask.path)]
        return found

    def _own(self, key: CallerKey) -> _Rule:
        """The general limit of a key: what it says itself goes before the settings."""
        said = (key.requests_per_minute, key.tokens_per_minute)
        if said not in self._of_keys:
            general = self._general
            self._of_keys[said] = general._replace(
                requests=said[0] or general.requests, tokens=said[1] or general.tokens
            )
        return self._of_keys[said]

    def _account(self, rule: _Rule, ask: Ask, now: float) -> _Account:
        """The account for one rule; of too many, the one that was silent longest is forgotten."""
        who = ""
        if rule.per is not Per.EVERYBODY:
            who = ask.turn if rule.per is Per.CALLER else source_of(ask.client)
        name = (rule.number, who, rule.requests, rule.tokens)
        account = self._accounts.pop(name, None)
        if account is None:
            account = _Account(
                rule,
                Bucket(rule.requests, now) if rule.requests else None,
                Bucket(rule.tokens, now) if rule.tokens else None,
            )
        self._accounts[name] = account
        if len(self._accounts) > MAX_ACCOUNTS:
            del self._accounts[next(iter(self._accounts))]
        return account


def _spent(key: CallerKey, today: Used) -> str:
    """Which budget of the day is used up."""
    if key.requests_per_day is not None and today.requests >= key.requests_per_day:
        return "requests"
    return "tokens" if key.tokens_per_day is not None and today.tokens >= key.tokens_per_day else ""
