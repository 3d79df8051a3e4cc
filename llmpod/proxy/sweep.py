"""Not a timer for each connection: one that looks at all of them, an eighth at a time, for what takes too long.

And the door, for they go together: how many connections there are, from where, and when that is enough.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Protocol

from llmpod.config import ProxySettings
from llmpod.proxy.answer import Answer
from llmpod.proxy.peer import source_of

SLOTS: Final = 8
ROUND_SECONDS: Final = (0.1, 2.0)  # one look at everybody takes between these
LOWEST_RATE: Final = 1024  # bytes a second of a body, after the grace
GRACE_SHARE: Final = 1 / 3  # of the idle limit of a body, before its rate counts
SAY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a client may take for what. Seconds.

    Args:
        header: for the whole header, and from a new connection's silence to its first byte.
        body_idle: between two reads of a body.
        idle: between two requests.
        stall: for taking anything of what was written to it.
    """

    header: float
    body_idle: float
    idle: float
    stall: float

    @classmethod
    def of(cls, settings: ProxySettings) -> "Deadlines":
        return cls(
            settings.header_seconds,
            settings.body_idle_seconds,
            settings.keep_alive_seconds,
            settings.stall_seconds,
        )

    @property
    def rate_grace(self) -> float:
        return self.body_idle * GRACE_SHARE

    @property
    def shortest(self) -> float:
        return min(self.header, self.body_idle, self.idle, self.stall)


class Watched(Protocol):
    """A connection, as the sweep sees it. ``current`` is what it answers now."""

    @property
    def current(self) -> object: ...

    def look(self, now: float) -> None:
        """Close yourself if something is overdue; ``now`` is the loop's time."""

    def forget(self) -> None:
        """What was allowed to you before must be asked again."""


class Sweep:
    """Looks at every connection about every two seconds, more often when deadlines are shorter.

    Args:
        deadlines: which the connections go by.
        loop: whose time it is.
        chore: done at every step; cheap.
    """

    def __init__(
        self,
        deadlines: Deadlines,
        loop: asyncio.AbstractEventLoop,
        *,
        chore: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._chore = chore
        self.adopt(deadlines)
        self._slots: tuple[set[Watched], ...] = tuple(set() for _ in range(SLOTS))
        self._now_at = 0
        self._timer = loop.call_later(self._step, self._run)

    def adopt(self, deadlines: Deadlines) -> None:
        """Go by these from now on."""
        self.deadlines = deadlines
        low, high = ROUND_SECONDS
        self._step = min(high, max(low, deadlines.shortest / 4)) / SLOTS

    def add(self, watched: Watched) -> int:
        """Watch a connection; returns the number under which it is dropped again."""
        slot = min(range(SLOTS), key=lambda n: len(self._slots[n]))
        self._slots[slot].add(watched)
        return slot

    def drop(self, slot: int, watched: Watched) -> None:
        self._slots[slot].discard(watched)

    def forget(self) -> None:
        """Tell all connections to forget what they were allowed."""
        for slot in self._slots:
            for watched in slot:
                watched.forget()

    def answers(self) -> list[Answer]:
        """All that are being given now."""
        watched = [one for slot in self._slots for one in slot]
        return [one.current for one in watched if isinstance(one.current, Answer)]

    def close(self) -> None:
        self._timer.cancel()

    def _run(self) -> None:
        self._timer = self._loop.call_later(self._step, self._run)
        self._now_at = (self._now_at + 1) % SLOTS
        now = self._loop.time()
        for watched in list(self._slots[self._now_at]):
            watched.look(now)
        self._chore()


class Door:
    """Counts who is in.

    Attributes:
        refused: how many were turned away so far.

    Args:
        most: connections altogether.
        most_per_source: from one address or network of IPv6; programs of this machine share one, so they are
            not counted by it.
        say: told of refusals, once a second at most, with their number.
        clock: monotonic seconds.
    """

    def __init__(
        self, most: int, most_per_source: int, *, say: Callable[[int], None], clock: Callable[[], float]
    ) -> None:
        self.adopt(most, most_per_source)
        self._say = say
        self._clock = clock
        self._inside = 0
        self._sources: Counter[str] = Counter()
        self._refused = 0
        self.refused = 0
        self._said_at = float("-inf")

    def adopt(self, most: int, most_per_source: int) -> None:
        """Other numbers from now on; who is in stays in."""
        self._most = most
        self._most_per_source = most_per_source

    @property
    def inside(self) -> int:
        return self._inside

    def enter(self, client: str) -> bool:
        """Whether one more may come in; who may not need not leave."""
        source = source_of(client)
        if self._inside >= self._most or (
            self._sources[source] >= self._most_per_source and not _is_local(client)
        ):
            self._refused += 1
            self.refused += 1
            self._tell()
            return False
        self._inside += 1
        self._sources[source] += 1
        return True

    def leave(self, client: str) -> None:
        source = source_of(client)
        self._inside -= 1
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]

    def _tell(self) -> None:
        now = self._clock()
        if now - self._said_at >= SAY_SECONDS:
            self._said_at, refused, self._refused = now, self._refused, 0
            self._say(refused)


def _is_local(client: str) -> bool:
    try:
        return ip_address(client.partition("%")[0]).is_loopback
    except ValueError:
        return False
