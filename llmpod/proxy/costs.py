"""Not the ledger of machines (lifecycle): what a caller's request costs, which no provider says.

A machine is paid by the hour, whatever it does. So a request costs its share of the machine while it works: the price
of that time, divided by how many are worked on then. All requests together cost what the machine did while it was
used; what it costs while nobody uses it is its owner's. Where tokens have a price by configuration, that counts.
"""

from collections.abc import Callable, Mapping
from typing import Final

from llmpod.config import CallerKey
from llmpod.config.rates import TokenPrice
from llmpod.lifecycle.tally import BudgetSpent, check_budget
from llmpod.proxy.accounts import Accounts
from llmpod.proxy.route import Destination

MILLION: Final = 1e6
HOUR: Final = 3600.0


class Till:
    """One machine's price by the second, shared by those for whom it works."""

    __slots__ = ("_at", "_each", "_usd_per_second", "_working")

    def __init__(self) -> None:
        self._at = 0.0
        self._each = 0.0  # USD for one that had been there from the beginning
        self._usd_per_second = 0.0
        self._working = 0

    def each(self, now: float) -> float:
        """What everybody who is there has paid by now, since the beginning; monotonic seconds."""
        if self._working:
            self._each += (now - self._at) * self._usd_per_second / self._working
        self._at = now
        return self._each

    def enter(self, usd_per_hour: float, now: float) -> float:
        """One more is worked on; what all had paid before."""
        before = self.each(now)
        self._usd_per_second = usd_per_hour / HOUR
        self._working += 1
        return before

    def leave(self, now: float) -> float:
        """One less; what all have paid by now."""
        paid = self.each(now)
        self._working -= 1
        return paid


class Book:
    """What requests cost and who pays.

    Args:
        prices: of tokens, by model; ``*`` for the rest.
        accounts: what was used.
        monotonic: seconds.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        prices: Mapping[str, TokenPrice],
        accounts: Accounts,
        *,
        monotonic: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.prices = prices
        self._accounts = accounts
        self._clock = clock
        self._tills: dict[str, Till] = {}
        self._open: dict[str, set[Bill]] = {}
        self.now = monotonic

    def till(self, model_key: str) -> Till:
        """That of one machine."""
        return self._tills.setdefault(model_key, Till())

    def price(self, destination: Destination, model: str) -> TokenPrice | None:
        """Of tokens, by the names of what answers, else by the name that was asked for; None: by time."""
        for name in (*(destination.names or (model,)), "*"):
            if (price := self.prices.get(name)) is not None:
                return price
        return None

    def open(self, bill: "Bill", *, known: bool) -> None:
        """Note a request that begins to cost. Raises BudgetSpent; ``known``: there is a price for it."""
        key = bill.key
        running = self._open.setdefault(key.id, set())
        if key.usd_per_day is not None or key.usd_per_month is not None:
            if not known:
                raise BudgetSpent(
                    "This key has a budget in USD, and nobody has said what this model costs.",
                    hint="Set `token_prices` (zero for what is free), or give the key no such budget.",
                )
            spent = sum(other.so_far() for other in running)
            check_budget(key, self._accounts.of(key), running=spent, now=self._clock())
        running.add(bill)

    def close(self, bill: "Bill") -> None:
        running = self._open.get(bill.key.id, set())
        running.discard(bill)
        if not running:
            self._open.pop(bill.key.id, None)


class Bill:
    """What one request of a key costs."""

    __slots__ = ("_before", "_book", "_price", "_till", "key")

    def __init__(self, book: Book, key: CallerKey) -> None:
        self.key = key
        self._book = book
        self._till: Till | None = None
        self._price: TokenPrice | None = None
        self._before = 0.0

    def begin(self, destination: Destination, model: str) -> None:
        """A model server works for it from now on. Raises BudgetSpent."""
        book = self._book
        price = book.price(destination, model)
        by_hour = destination.usd_per_hour
        book.open(self, known=price is not None or by_hour is not None)
        self._price = price
        if price is None and by_hour is not None:
            self._till = book.till(destination.model_key)
            self._before = self._till.enter(by_hour, book.now())

    def so_far(self) -> float:
        """USD; of tokens none are known before the end."""
        return 0.0 if self._till is None else self._till.each(self._book.now()) - self._before

    def close(self, prompt: int, completion: int) -> float | None:
        """It is over, having taken so many tokens; what it costs in USD, or None when nobody knows."""
        self._book.close(self)
        if self._price is not None:
            return (prompt * self._price.prompt + completion * self._price.completion) / MILLION
        if self._till is None:
            return None
        till, self._till = self._till, None
        return till.leave(self._book.now()) - self._before
