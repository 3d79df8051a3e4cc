"""Not a ledger and not arithmetic: what a pass asks of the money, over both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from llmpod.config import Budget
from llmpod.errors import NoMoney
from llmpod.lifecycle import match
from llmpod.lifecycle.book import Book, Entry, tenants
from llmpod.lifecycle.ledger import Ledger
from llmpod.lifecycle.money import Allowance, afford, alerts, allowance
from llmpod.lifecycle.spending import assumed
from llmpod.model import Event, EventKind, Instance, Record


class Purse:
    """The money of one installation, for one pass.

    Args:
        ledger: what was spent.
        budget: the limits, or None.
        most_usd_per_hour: counted for a machine whose price nobody has said; None: such a machine counts nothing.
    """

    def __init__(self, ledger: Ledger, budget: Budget | None, *, most_usd_per_hour: float | None) -> None:
        self._ledger = ledger
        self._budget = budget
        self._most = most_usd_per_hour
        self._book = Book()

    @property
    def entries(self) -> Sequence[Entry]:
        return assumed(self._book.entries, self._most)

    @property
    def was_used(self) -> bool:
        """Whether anything was ever bought here, or was about to be."""
        return self._ledger.path.exists()

    def open(self) -> None:
        """Before the first purchase: from now on it shows that there was one. Raises StateError."""
        self._ledger.begin()

    def recall(self) -> None:
        """Read what is written, when nobody can tell what exists. Raises StateError."""
        self._book = self._ledger.read()

    def sync(
        self, instances: Sequence[Instance], records: Mapping[str, Record], *, now: float, complete: bool
    ) -> None:
        """Write down what is new.

        Args:
            instances: machines of ours.
            records: by model.
            now: the time.
            complete: these are all, so that one that lacks has ended.

        Raises:
            StateError: it cannot be written or read; nothing more may be bought.
        """
        self._book = self._ledger.sync(
            _priced(instances, records), tenants(records), now=now, complete=complete
        )
        if self._book.error is not None:
            raise self._book.error

    def note(self, made: Instance, records: Mapping[str, Record], *, now: float) -> None:
        """Write down what was just bought. Raises StateError."""
        self._book = self._ledger.note(_priced((made,), records)[0], tenants(records), now=now)
        if self._book.error is not None:
            raise self._book.error

    def allowed(self, now: float) -> Allowance:
        """What the budget allows."""
        return allowance(self._budget, self.entries, now)

    def until(self, usd_per_hour: float | None, now: float) -> float | None:
        """For how long one more machine of this price may run beside what runs; None: as long as it likes.

        Raises:
            NoMoney: not even a minute, or its price is unknown and so cannot be held to a budget.
        """
        allowed = self.allowed(now)
        price = usd_per_hour if usd_per_hour is not None else self._most
        if allowed.limits and price is None:
            raise NoMoney(
                "The price of this machine is unknown, so no budget can be kept with it.",
                hint="`--refresh-catalog` fetches prices; or set `max_hourly_cost`.",
            )
        afford(allowed, price)
        return allowed.deadline(price or 0.0)

    def alarms(self, now: float) -> Iterator[tuple[str, Event]]:
        """What is to be told once, with the key under which that is remembered: 80 % and 100 % of a limit."""
        for alert in alerts(self.allowed(now)):
            yield alert.key, Event(EventKind.BUDGET, "", alert.text, now)


def _priced(instances: Sequence[Instance], records: Mapping[str, Record]) -> list[Instance]:
    """The machines, with the list price where the provider does not say what it bills."""
    return [seen if seen.usd_per_hour is not None else _listed(seen, records) for seen in instances]


def _listed(seen: Instance, records: Mapping[str, Record]) -> Instance:
    of = next((record for record in records.values() if match.find(record, (seen,)) is not None), Record())
    return replace(seen, usd_per_hour=of.usd_per_hour)
