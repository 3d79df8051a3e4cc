"""Not the file of keys: what was used with each of them today and this month, as the proxy writes it beside that file.

Days and months are UTC. The proxy alone writes; ``keys list`` reads. The file is small (a line a key), private and
replaced whole. One that is damaged holds nothing: the counts begin anew, for a proxy must start.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Final

from llmpod.config import CallerKey
from llmpod.errors import LlmpodError, StateError
from llmpod.lifecycle import files
from llmpod.lifecycle.money import dollars
from llmpod.lifecycle.spending import day_of, month_of
from llmpod.lifecycle.typed import typed

SCHEMA: Final = 1
SUFFIX: Final = ".used.json"


class BudgetSpent(LlmpodError):
    """The money that a key may spend is spent, or cannot be counted. 402, which no SDK repeats."""

    status: ClassVar[int] = 402
    type: ClassVar[str] = "insufficient_quota"
    code: ClassVar[str] = "budget_spent"


@dataclass(slots=True)
class Used:
    """What was used in one period.

    ``usd`` is the share of the machine's price, or the price of the tokens; ``unpriced`` are the requests that it does
    not hold, because nobody knows what they cost.
    """

    requests: int = 0
    tokens: int = 0
    usd: float = 0.0
    unpriced: int = 0

    def answered(self, tokens: int, usd: float | None) -> None:
        """A model server has answered; None: at a price that nobody knows."""
        self.tokens += tokens
        self.usd += usd or 0.0
        self.unpriced += usd is None


@dataclass(slots=True)
class Tally:
    """What was used with one key. ``day`` and ``month`` name the periods: ``2026-11-21``, ``2026-11``."""

    day: str = ""
    today: Used = field(default_factory=Used)
    month: str = ""
    this_month: Used = field(default_factory=Used)

    def turn(self, day: str) -> None:
        """Begin anew what is over."""
        if self.day != day:
            self.day, self.today = day, Used()
        if self.month != day[:7]:
            self.month, self.this_month = day[:7], Used()

    def asked(self) -> None:
        """One more request."""
        self.today.requests += 1
        self.this_month.requests += 1

    def unasked(self) -> None:
        """The last request is not served after all; a new day may have begun since."""
        self.today.requests = max(0, self.today.requests - 1)
        self.this_month.requests = max(0, self.this_month.requests - 1)

    def answered(self, tokens: int, usd: float | None) -> None:
        """See :meth:`Used.answered`."""
        self.today.answered(tokens, usd)
        self.this_month.answered(tokens, usd)


def day_name(at: float) -> str:
    """The UTC day of a moment."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def tally_file(keys: Path) -> Path:
    """Where the counts of a file of keys are."""
    return keys.with_suffix(SUFFIX)


def read_tally(path: Path) -> dict[str, Tally]:
    """What was used, by the keys' ids; nothing when there is no file.

    Raises:
        StateError: it cannot be read, or is not what we write.
    """
    document = files.read_json(path)
    if document is None:
        return {}
    try:
        if document["schema"] != SCHEMA:
            raise StateError(f"{path} was written by another version (schema {document['schema']!r}).")
        return {str(name): typed(Tally, entry) for name, entry in document["keys"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise StateError(f"{path} is damaged ({e!r}).") from None


def write_tally(path: Path, tally: Mapping[str, Tally]) -> None:
    """Durable before it returns. Raises StateError; the old content stands."""
    keys = {name: asdict(one) for name, one in tally.items()}
    files.write_atomic(path, json.dumps({"schema": SCHEMA, "keys": keys}, indent=1) + "\n")


def check_budget(key: CallerKey, tally: Tally, *, running: float, now: float) -> None:
    """Whether the key has money left.

    Args:
        key: with its budgets.
        tally: what was used with it, turned to ``now``.
        running: USD that its requests under way have cost so far.
        now: the time.

    Raises:
        BudgetSpent: a budget is spent; the message has the figures.
    """
    month, day = (key.usd_per_month, tally.this_month, month_of), (key.usd_per_day, tally.today, day_of)
    for most, used, period in (month, day):
        spent = used.usd + running
        if most is not None and spent >= most:
            renews = period(now)[1]
            name = tally.month if period is month_of else tally.day
            raise BudgetSpent(
                f"This key's budget of {dollars(most)} for {name} is spent: {dollars(spent)}."
                f" It renews on {day_name(renews)} (UTC); what is stored is still served.",
                hint="Raise it: manage_pod.py keys limit NAME --usd-per-"
                f"{'month' if period is month_of else 'day'} USD.",
                retry_after=renews - now,
            )
