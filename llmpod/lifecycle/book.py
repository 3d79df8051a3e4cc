"""Not a file and not a sum: what the ledger's lines mean, and which lines are due. Pure.

Times are epoch seconds, money is US dollars. A line tells one change:

| event | says |
|---|---|
| open  | a machine of ours exists (or exists again): since when, at what rate, when its own switch ends it |
| rate  | from then on it costs so much an hour; 0 while it is stopped |
| late  | it was seen alive although its own switch should have ended it |
| close | it is gone, and when its cost ended |

Lines are facts that may come twice or not at all: an ``open`` for a known machine only adds to what is known of it,
and what a lost line would have said is due again in the next pass.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmpod.errors import StateError
from llmpod.lifecycle import match
from llmpod.model import Instance, Observed, Record

VERSION = 1
SWITCH_MARGIN_SECONDS = 300.0  # a switch looks at intervals of up to this, and its delete call takes a moment
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose a machine is: the model it runs, and the deadline that is armed inside it (None: not known)."""

    model: str = ""
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One machine of ours, from its creation to its end.

    Args:
        rates: since when it costs how many USD per hour, oldest first; None: nobody has said.
        until: when its own switch ends it, or None.
        late: it outlived that.
        closed_at: when its cost ended; None while it exists as far as anybody knows.
    """

    pod: str
    name: str
    model: str
    gpu: str
    opened_at: float
    rates: tuple[tuple[float, float | None], ...]
    until: float | None = None
    late: bool = False
    closed_at: float | None = None

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    @property
    def usd_per_hour(self) -> float | None:
        """What it cost when it was last looked at."""
        return self.rates[-1][1]

    @property
    def ends_by(self) -> float:
        """When its switch has certainly ended it; infinite when nothing says so."""
        return math.inf if self.until is None or self.late else self.until + SWITCH_MARGIN_SECONDS

    def end(self, at: float) -> float:
        """Where its cost ends, as far as can be known at ``at``.

        While nobody looked (the computer was off for days), a machine that was not seen to outlive its switch
        is taken to have been ended by it, rather than to have run until somebody looked again.
        """
        return self.closed_at if self.closed_at is not None else max(self.opened_at, min(at, self.ends_by))

    def pieces(self, at: float) -> Iterator[tuple[float, float, float | None]]:
        """From, to and USD per hour of each stretch until ``at``."""
        end = min(at, self.end(at))
        starts = [self.opened_at, *(since for since, _ in self.rates[1:])]
        for index, (_, rate) in enumerate(self.rates):
            stop = starts[index + 1] if index + 1 < len(starts) else math.inf
            if starts[index] < min(stop, end):
                yield starts[index], min(stop, end), rate


@dataclass(frozen=True, slots=True)
class Book:
    """All that the lines say.

    Args:
        machines: by pod id.
        damaged: lines that say nothing (torn by a crash).
        error: why the last changes could not be written down; they are in here all the same.
    """

    machines: Mapping[str, Entry] = field(default_factory=dict)
    damaged: int = 0
    error: StateError | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All machines, oldest first."""
        return tuple(sorted(self.machines.values(), key=lambda entry: entry.opened_at))

    @property
    def open(self) -> tuple[Entry, ...]:
        """Those that exist as far as anybody knows."""
        return tuple(entry for entry in self.entries if entry.is_open)

    def with_lines(self, lines: Iterable[Line]) -> "Book":
        """The book with more lines; one that is no line counts as damaged."""
        machines, damaged = dict(self.machines), self.damaged
        for line in lines:
            try:
                entry = _after(machines.get(str(line["pod"])), line)
            except (KeyError, TypeError, ValueError, OverflowError):
                damaged += 1
            else:
                machines[entry.pod] = entry
        return Book(machines, damaged, self.error)


def tenants(records: Mapping[str, Record]) -> Callable[[Instance], Tenant]:
    """Says whose a listed machine is, from what is remembered and, for an orphan, from its name.

    Args:
        records: the state's records by model.
    """

    def whose(seen: Instance) -> Tenant:
        for key, record in records.items():
            if match.find(record, (seen,)) is not None:
                return Tenant(record.model or key, record.switch_at)
        key = match.owner(seen.name, records) or ""
        return Tenant(records[key].model or key if key else "")

    return whose


def due(
    book: Book,
    instances: Sequence[Instance],
    whose: Callable[[Instance], Tenant],
    *,
    now: float,
    ended: Mapping[str, float] | None = None,
    complete: bool = True,
) -> list[Line]:
    """The lines that are missing, given the machines of ours that exist now.

    Args:
        book: what was written.
        instances: machines of ours, as listed.
        whose: see :func:`tenants`.
        now: the time.
        ended: by pod id, when a machine is known to have ended, where that was before ``now``.
        complete: the instances are all of ours, so that one that lacks is gone.
    """
    lines = [line for seen in instances for line in _seen(book.machines.get(seen.id), seen, whose, now=now)]
    there = {seen.id for seen in instances}
    for entry in book.open if complete else ():
        if entry.pod not in there:
            end = min((ended or {}).get(entry.pod, now), entry.end(now))
            lines.append(_line("close", entry.pod, now, ended=max(end, entry.opened_at)))
    return lines


def _seen(
    entry: Entry | None, seen: Instance, whose: Callable[[Instance], Tenant], *, now: float
) -> Iterator[Line]:
    tenant, rate = whose(seen), _rate(entry, seen)
    if entry is None or not entry.is_open or _tells_more(entry, seen, tenant):
        about = {"name": seen.name, "model": tenant.model, "gpu": seen.gpu or "", "until": tenant.until}
        opened = min(seen.created_at or now, now)
        yield _line("open", seen.id, now, **about, opened=opened, usd_per_hour=rate)
    if entry is not None and rate != entry.usd_per_hour:
        yield _line("rate", seen.id, now, usd_per_hour=rate)
    until = tenant.until if entry is None or entry.until is None else entry.until
    if until is not None and now > until + SWITCH_MARGIN_SECONDS and not (entry and entry.late):
        yield _line("late", seen.id, now)


def _tells_more(entry: Entry, seen: Instance, tenant: Tenant) -> bool:
    """A machine of which only the name was known is later found to be somebody's."""
    news = (tenant.model and not entry.model, seen.gpu and not entry.gpu)
    return any(news) or (tenant.until is not None and entry.until is None)


def _rate(entry: Entry | None, seen: Instance) -> float | None:
    """What it costs now. RunPod goes on naming the price of a stopped pod, for which it bills no GPU (measured).

    A price that is missing in one answer is still the last one that was told; what nobody ever told is unknown.
    """
    if seen.observed is Observed.EXITED:
        return 0.0
    told = seen.usd_per_hour
    if told is not None and math.isfinite(told) and told >= 0:
        return told
    return next((rate for _, rate in reversed(entry.rates) if rate), None) if entry else None


def _line(event: str, pod: str, now: float, **more: object) -> Line:
    return {"v": VERSION, "at": now, "event": event, "pod": pod, **more}


# --- from lines to entries ---------------------------------------------------------------------------------------
def _after(entry: Entry | None, line: Line) -> Entry:
    """Raises KeyError, TypeError or ValueError for what is no line about this machine."""
    event, at = line["event"], _number(line["at"])
    if event == "open":
        return _opened(entry, line)
    if entry is None:
        raise ValueError(f"{event} of a machine that was never opened")
    if event == "rate":
        return replace(entry, rates=_rates(entry.rates, at, _price(line["usd_per_hour"])))
    if event == "late":
        return replace(entry, late=True)
    if event == "close":
        return replace(entry, closed_at=max(entry.opened_at, _number(line["ended"])))
    raise ValueError(f"unknown event {event!r}")


def _opened(entry: Entry | None, line: Line) -> Entry:
    opened, until = _number(line["opened"]), line["until"]
    new = Entry(
        pod=str(line["pod"]),
        name=str(line["name"]),
        model=str(line["model"]),
        gpu=str(line["gpu"]),
        opened_at=opened,
        rates=((opened, _price(line["usd_per_hour"])),),
        until=None if until is None else _number(until),
    )
    if entry is None:
        return new
    return replace(
        entry,
        model=entry.model or new.model,
        gpu=entry.gpu or new.gpu,
        until=new.until if entry.until is None else entry.until,
        closed_at=None,
    )


def _rates(
    rates: tuple[tuple[float, float | None], ...], at: float, rate: float | None
) -> tuple[tuple[float, float | None], ...]:
    """A price that comes to be known is also that of the time before, of which none was known."""
    if rate:
        rates = tuple((since, rate if old is None else old) for since, old in rates)
    return rates if rates[-1][1] == rate else (*rates, (max(at, rates[-1][0]), rate))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _price(value: Any) -> float | None:
    if value is None:
        return None
    if (price := _number(value)) < 0:
        raise ValueError(f"{value!r} is not a price")
    return price
