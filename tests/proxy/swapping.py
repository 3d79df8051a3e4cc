"""A GPU that holds one of three models, and clients who ask, wait, leave and get answers; all of it simulated.

The manager of this world starts and stops what is wished after a while, and tells so; it stops nothing by itself.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count

from llmpod.errors import LlmpodError
from llmpod.proxy.scheduler import Scheduler
from llmpod.proxy.states import Model, Sight, Ticket

START_SECONDS, STOP_SECONDS = 8.0, 1.0
NAMES = ("a", "b", "c")


@dataclass
class _Load:
    in_flight: int = 0


class Swapping:
    """One run.

    Args:
        dice: decides everything that is random.
        requests: how many.
    """

    def __init__(self, dice: random.Random, *, requests: int) -> None:
        self.dice = dice
        self.now = 0.0
        self.wrong: list[str] = []
        self.swaps = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._loads = {name: _Load() for name in NAMES}
        self._runs: str | None = None
        self._asked: dict[int, str] = {}
        self._done: set[int] = set()
        self._left: set[int] = set()
        models = [Model(name, self._loads[name], 1e9, group="gpu") for name in NAMES]
        self.scheduler = Scheduler(models, self)
        self.most_swaps = self._arrivals(requests)

    @property
    def lost(self) -> list[int]:
        """Requests that got no answer although their client stayed."""
        return [number for number in self._asked if number not in self._done | self._left]

    def run(self) -> None:
        """To the end of everything."""
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()
            self.scheduler.tick(self.now)

    def _arrivals(self, requests: int) -> int:
        """Bursts for all models at once, mixed, each after the last one is over: one load for each model of a burst is
        the least, less one where the burst can begin with what runs; a tenth more may be needed.
        """
        loads, at, left = 0, 0.0, requests
        while left:
            size = min(left, self.dice.randint(20, 60))
            names = [self.dice.choice(NAMES) for _ in range(size)]
            for name in names:
                self._at(at + self.dice.random() * 0.5, partial(self._ask, name))
            loads += len(set(names))
            left -= size
            at += 200.0
        return int(loads * 1.1) + 1

    def _at(self, moment: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._number), event))

    # --- clients
    def _ask(self, name: str) -> None:
        number = len(self._asked)
        self._asked[number] = name
        ticket = Ticket(partial(self._go, number), partial(self._refused, number), self.now + 1e6)
        if self.scheduler.ask(name, ticket, self.now):
            self._go(number)
        elif self.dice.random() < 0.15:
            self._at(self.now + self.dice.random() * 20.0, partial(self._leave, number, ticket))

    def _go(self, number: int) -> None:
        name = self._asked[number]
        if self._runs != name:
            self.wrong.append(f"request {number} for {name} went to {self._runs}")
        self._loads[name].in_flight += 1
        self._at(self.now + self.dice.random() * 2.0, partial(self._answered, number))

    def _answered(self, number: int) -> None:
        name = self._asked[number]
        self._done.add(number)
        self._loads[name].in_flight -= 1
        if not self._loads[name].in_flight:
            self.scheduler.released(name, self.now)

    def _refused(self, number: int, error: LlmpodError) -> None:
        self.wrong.append(f"request {number} was refused: {error}")

    def _leave(self, number: int, ticket: Ticket) -> None:
        name = self._asked[number]
        if ticket in self.scheduler.model(name).line:
            self._left.add(number)
            self.scheduler.leave(name, ticket, self.now)

    # --- the manager
    def wake(self, model: str) -> None:
        if self._runs is not None:
            self.wrong.append(f"{model} was started beside {self._runs}")
        self._runs = model
        self.swaps += 1
        self._at(self.now + 0.1, partial(self._tell, model, Sight.MOVING))
        self._at(self.now + START_SECONDS, partial(self._tell, model, Sight.READY))

    def rest(self, model: str, _why: str) -> None:
        if self._loads[model].in_flight:
            self.wrong.append(f"{model} was stopped at work")
        self._runs = f"{model}, which is stopping"
        self._at(self.now + STOP_SECONDS, partial(self._gone, model))

    def _gone(self, model: str) -> None:
        self._runs = None
        self._tell(model, Sight.DOWN)

    def _tell(self, model: str, sight: Sight) -> None:
        if sight is Sight.READY and self._runs != model:
            return  # it was stopped on its way
        self.scheduler.seen(model, sight, self.now, settled=True, why=LlmpodError("down"))
