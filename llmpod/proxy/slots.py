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
class Place:
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
        self._waiting: OrderedDict[str, deque[Place]] = OrderedDict()
        self._back: deque[Place] = deque()  # those who had stepped aside
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

    def enter(self, place: Place) -> None:
        """Work now, wait, or hear at once that it is too much.

        Raises:
            Overloaded: the line is full, and this caller has its share of it.
        """
        place.slots = self
        if self._free < self._places and self.full():
            raise self._too_much()
        if self._free > 0 and not self._count:
            self._start(place)
            return
        place.since = self._clock()
        mine = self._waiting.get(place.caller)
        if self._count >= self._line and not self._make_room(len(mine) if mine else 0):
            raise self._too_much()
        self._waiting.setdefault(place.caller, deque()).append(place)
        self._count += 1

    def leave(self, place: Place) -> None:
        """It is over, however it ended; the next one begins."""
        if place.done:
            return
        place.done = True
        if place.working:
            self._free += 1
            self._takes += MEMORY * (self._clock() - place.since - self._takes)
            self._next()
        elif place in self._back:
            self._back.remove(place)
        else:
            self._remove(place)

    def step_aside(self, place: Place) -> None:
        """See there."""
        if place.working:
            place.working = False
            self._free += 1
            self._next()

    def come_back(self, place: Place, go: Callable[[], None]) -> None:
        """See there."""
        place.go = go
        self._back.append(place)
        self._next()

    def expire(self) -> None:
        """Send away who waited too long."""
        oldest = self._clock() - self._patience
        for line in list(self._waiting.values()):
            for place in [place for place in line if place.since <= oldest]:
                self._dismiss(place)

    def _start(self, place: Place) -> None:
        self._free -= 1
        place.working = True
        place.since = self._clock()
        place.go()

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
                place = line[0]
                self._remove(place)
                if line:
                    self._waiting.move_to_end(caller)
                self._start(place)
        finally:
            self._calling = False

    def _make_room(self, mine: int) -> bool:
        """Whether the last one of a caller who has more in the line than this one was sent away."""
        longest = max(self._waiting.values(), key=len)
        if len(longest) <= mine + 1:
            return False
        self._dismiss(longest[-1])
        return True

    def _dismiss(self, place: Place) -> None:
        self._remove(place)
        place.done = True
        place.no(self._too_much())

    def _remove(self, place: Place) -> None:
        line = self._waiting.get(place.caller)
        if line is not None and place in line:
            line.remove(place)
            self._count -= 1
            if not line:
                del self._waiting[place.caller]

    def _too_much(self) -> Overloaded:
        """``retry_after``: how long those who wait now will take."""
        hint = self._takes * (self._count + 1) / self._places
        busy = self._places - self._free
        return Overloaded(
            f"Too many requests are under way: {busy} of {self._places} at work, {self.waiting} wait.",
            retry_after=min(LONGEST_HINT, max(1.0, hint)),
        )
