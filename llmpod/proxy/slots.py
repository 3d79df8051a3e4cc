"""Not a rate limit (limits.py): how many requests are worked on at once, who waits, and who is sent away at once.

Callers take turns: who asks a thousand times waits for himself, not others for him. Hits from memory need no slot. Who
waits for something else than a place, as for a model that is being started, steps aside: his place is free meanwhile,
and when he comes back he goes before those who are still to begin.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from llmpod.errors import LlmpodError, Overloaded

MEMORY: Final = 0.1  # weight of the newest answer in what one is expected to take
LONGEST_HINT: Final = 60.0


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place.

    Args:
        caller: whose turn it uses.
        go: called when it may be worked on.
        no: called instead with the reason, when it waited too long.
    """

    caller: str
    go: Callable[[], None]
    no: Callable[[LlmpodError], None]
    since: float = 0.0
    working: bool = field(default=False, init=False)
    done: bool = field(default=False, init=False)
    slots: "Slots | None" = field(default=None, init=False)

    def step_aside(self) -> None:
        """Let others work in this place until it comes back."""
        if self.slots is not None:
            self.slots.step_aside(self)

    def come_back(self, go: Callable[[], None]) -> None:
        """Call ``go`` when there is a place again: for that there is no limit of time or number."""
        if self.slots is not None:
            self.slots.come_back(self, go)


class Slots:
    """Places to work in, and a line in front of them.

    Args:
        places: requests worked on at once.
        line: requests that may wait.
        patience: seconds that one may wait.
        clock: monotonic seconds.
    """

    def __init__(
        self, places: int, line: int, *, patience: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._free = self._places = places
        self._line = line
        self._patience = patience
        self._clock = clock
        self._waiting: OrderedDict[str, deque[Ticket]] = OrderedDict()
        self._back: deque[Ticket] = deque()  # those who had stepped aside
        self._count = 0
        self._calling = False
        self._takes = 1.0  # seconds that an answer takes, smoothed
        self.full: Callable[[], bool] = lambda: False
        """Whether this process can bear no more at once than it has; one thing after the other it always can."""

    @property
    def waiting(self) -> int:
        return self._count + len(self._back)

    def adopt(self, places: int, line: int, *, patience: float) -> None:
        """Other numbers from now on; who is worked on or waits stays."""
        self._free += places - self._places
        self._places, self._line, self._patience = places, line, patience
        self._next()

    def enter(self, ticket: Ticket) -> None:
        """Work now, wait, or hear at once that it is too much.

        Raises:
            Overloaded: the line is full, and this caller has its share of it.
        """
        ticket.slots = self
        if self._free < self._places and self.full():
            raise self._too_much()
        if self._free > 0 and not self._count:
            self._start(ticket)
            return
        ticket.since = self._clock()
        mine = self._waiting.get(ticket.caller)
        if self._count >= self._line and not self._make_room(len(mine) if mine else 0):
            raise self._too_much()
        self._waiting.setdefault(ticket.caller, deque()).append(ticket)
        self._count += 1

    def leave(self, ticket: Ticket) -> None:
        """It is over, however it ended; the next one begins."""
        if ticket.done:
            return
        ticket.done = True
        if ticket.working:
            self._free += 1
            self._takes += MEMORY * (self._clock() - ticket.since - self._takes)
            self._next()
        elif ticket in self._back:
            self._back.remove(ticket)
        else:
            self._remove(ticket)

    def step_aside(self, ticket: Ticket) -> None:
        """See there."""
        if ticket.working:
            ticket.working = False
            self._free += 1
            self._next()

    def come_back(self, ticket: Ticket, go: Callable[[], None]) -> None:
        """See there."""
        ticket.go = go
        self._back.append(ticket)
        self._next()

    def expire(self) -> None:
        """Send away who waited too long."""
        oldest = self._clock() - self._patience
        for line in list(self._waiting.values()):
            for ticket in [ticket for ticket in line if ticket.since <= oldest]:
                self._dismiss(ticket)

    def _start(self, ticket: Ticket) -> None:
        self._free -= 1
        ticket.working = True
        ticket.since = self._clock()
        ticket.go()

    def _next(self) -> None:
        """Who has come back; then the first one of the caller whose turn it is, who stands last among them then.

        A loop, not a chain of calls: who is worked on may be done at once, and says so from within.
        """
        if self._calling:
            return
        self._calling = True
        try:
            while self._free > 0 and (self._back or self._waiting):
                if self._back:
                    self._start(self._back.popleft())
                    continue
                caller, line = next(iter(self._waiting.items()))
                ticket = line[0]
                self._remove(ticket)
                if line:
                    self._waiting.move_to_end(caller)
                self._start(ticket)
        finally:
            self._calling = False

    def _make_room(self, mine: int) -> bool:
        """Whether the last one of a caller who has more in the line than this one was sent away."""
        longest = max(self._waiting.values(), key=len)
        if len(longest) <= mine + 1:
            return False
        self._dismiss(longest[-1])
        return True

    def _dismiss(self, ticket: Ticket) -> None:
        self._remove(ticket)
        ticket.done = True
        ticket.no(self._too_much())

    def _remove(self, ticket: Ticket) -> None:
        line = self._waiting.get(ticket.caller)
        if line is not None and ticket in line:
            line.remove(ticket)
            self._count -= 1
            if not line:
                del self._waiting[ticket.caller]

    def _too_much(self) -> Overloaded:
        """``retry_after``: how long those who wait now will take."""
        hint = self._takes * (self._count + 1) / self._places
        busy = self._places - self._free
        return Overloaded(
            f"Too many requests are under way: {busy} of {self._places} at work, {self.waiting} wait.",
            retry_after=min(LONGEST_HINT, max(1.0, hint)),
        )
