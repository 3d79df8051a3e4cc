"""Not the owner of any state (scheduler.py): which states a model has for requests, and what leads where.

One for each model that starts with requests; only the scheduler changes it:

| state    | WANTED        | READY        | GONE                  | UNUSED        | RENEWED          |
|----------|---------------|--------------|-----------------------|---------------|------------------|
| ASLEEP   | wish → WAKING | open → AWAKE |                       | wish → RESTING|                  |
| WAKING   |               | open → AWAKE | refuse all → ASLEEP   | wish → RESTING|                  |
| AWAKE    |               |              | → ASLEEP              | wish → RESTING| wish → RENEWING  |
| RESTING  | wish → WAKING | keep → AWAKE | → ASLEEP              |               | → RENEWING       |
| RENEWING |               | keep → AWAKE | wish → WAKING         | → RESTING     |                  |

WANTED: it is the model's turn and somebody waits. UNUSED: nobody used it for its time, or its place is another one's.
RENEWED: an operator wants it to be started anew. READY and GONE are what the manager made of the last wish. A model in
RESTING or RENEWING gets nothing more, so a stop meets nobody; one with a request in flight never gets there. Who asks
for one in RENEWING waits, and does not take its stop back. One that is READY though its stop was wished (the pass
failed, or the wish could not be written) is kept: the wish is taken back, or a later pass would hear it in the middle
of an answer.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Protocol

from llmpod.errors import LlmpodError


class State(Enum):
    """Of one model, as requests meet it."""

    ASLEEP = auto()  # nothing is wished of it, here
    WAKING = auto()  # its start is wished
    AWAKE = auto()  # requests are sent to it
    RESTING = auto()  # its stop is wished
    RENEWING = auto()  # its stop is wished, and its start after that


class Event(Enum):
    """What happens to a model."""

    WANTED = auto()
    READY = auto()
    GONE = auto()
    UNUSED = auto()
    RENEWED = auto()


class Act(Enum):
    """What follows."""

    WAKE = auto()  # wish that it be started
    REST = auto()  # wish that it be stopped
    OPEN = auto()  # let go on who waits for it
    KEEP = auto()  # the same, and wish no more that it be stopped
    REFUSE = auto()  # tell those who wait for it why not
    LET = auto()  # nothing


class Sight(Enum):
    """How a model looks in the state file."""

    READY = auto()
    MOVING = auto()  # on its way up or down
    DOWN = auto()


TABLE: Final[Mapping[State, Mapping[Event, tuple[State, Act]]]] = {
    State.ASLEEP: {
        Event.WANTED: (State.WAKING, Act.WAKE),
        Event.READY: (State.AWAKE, Act.OPEN),
        Event.UNUSED: (State.RESTING, Act.REST),  # somebody else has it started
    },
    State.WAKING: {
        Event.READY: (State.AWAKE, Act.OPEN),
        Event.GONE: (State.ASLEEP, Act.REFUSE),
        Event.UNUSED: (State.RESTING, Act.REST),
    },
    State.AWAKE: {
        Event.GONE: (State.ASLEEP, Act.LET),
        Event.UNUSED: (State.RESTING, Act.REST),
        Event.RENEWED: (State.RENEWING, Act.REST),
    },
    State.RESTING: {
        Event.WANTED: (State.WAKING, Act.WAKE),
        Event.READY: (State.AWAKE, Act.KEEP),
        Event.GONE: (State.ASLEEP, Act.LET),
        Event.RENEWED: (State.RENEWING, Act.LET),
    },
    State.RENEWING: {
        Event.READY: (State.AWAKE, Act.KEEP),
        Event.GONE: (State.WAKING, Act.WAKE),
        Event.UNUSED: (State.RESTING, Act.LET),
    },
}


class Load(Protocol):
    """How many requests a model works on; somebody else counts them."""

    @property
    def in_flight(self) -> int: ...


class Hands(Protocol):
    """The effects: what is wished is written down and the manager told."""

    def wake(self, model: str) -> None: ...

    def rest(self, model: str, why: str) -> None: ...


@dataclass(slots=True, eq=False)
class Ticket:
    """One request that waits, or the place of some that will come again instead.

    Args:
        go: called when it may go on.
        no: called instead, with the reason.
        until: when it stops waiting.
        due: when they were told to come again; None: it waits.
    """

    go: Callable[[], None]
    no: Callable[[LlmpodError], None]
    until: float
    due: float | None = None
    since: float = 0.0


@dataclass(slots=True, eq=False)
class Model:
    """One model.

    Args:
        name: under which its usage is counted.
        load: its requests in flight.
        idle_seconds: from the end of its last request to its stop.
        group: see above; empty: it is alone.
        priority: within its group; higher goes first.
    """

    name: str
    load: Load
    idle_seconds: float
    group: str = ""
    priority: int = 0
    state: State = field(default=State.ASLEEP, init=False)
    sight: Sight = field(default=Sight.DOWN, init=False)
    line: deque[Ticket] = field(default_factory=deque, init=False)
    boarding: set[Ticket] = field(default_factory=set, init=False)
    settled: bool = field(default=False, init=False)
    since: float = field(default=0.0, init=False)
    used_at: float = field(default=0.0, init=False)
    kept_until: float = field(default=0.0, init=False)
    failures: int = field(default=0, init=False)
    hold_until: float = field(default=0.0, init=False)
    trouble: LlmpodError | None = field(default=None, init=False)
    bar: LlmpodError | None = field(default=None, init=False)

    @property
    def there(self) -> bool:
        """Whether it takes its group's place."""
        return self.state is not State.ASLEEP or self.sight is not Sight.DOWN

    @property
    def busy(self) -> bool:
        """Whether it works, or somebody who was let go on has not got there yet."""
        return self.load.in_flight > 0 or bool(self.boarding)

    def needed(self, now: float) -> bool:
        """Whether it is busy, or kept for somebody who was told to come again."""
        return self.busy or now < self.kept_until
