"""Not the playing: what a cell of the sweep is and what came of it, and which combinations there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.sweep.managers import Kill
from tests.sweep.scenarios import FAULTS, NO_FAULT, SCENARIOS, Fault, Scenario


@dataclass(frozen=True)
class Cell:
    """One situation, one fault, and the kills by the number of the call (0: the scenario's own).

    A fault can end a call before its kill is due; then the kill is due in the next one. ``cold`` starts the first
    two from nothing, as cron does: the one that is killed and the one that meets what it left.
    """

    scenario: Scenario
    fault: Fault = NO_FAULT
    kills: Mapping[int, Kill] = field(default_factory=dict)
    cold: bool = False

    def __str__(self) -> str:
        kills = ", ".join(f"pass {n} at {kill}" for n, kill in self.kills.items())
        return f"{self.scenario.name} / {self.fault.name} / {kills or 'no kill'}"


@dataclass
class Outcome:
    """What a cell came to; ``wrong`` is empty when all is well."""

    cell: Cell
    kills: int = 0
    settled_after: float = 0.0
    wrong: list[str] = field(default_factory=list)
    left_over: int = 0

    def __str__(self) -> str:
        return f"{self.cell}: {'; '.join(self.wrong) or 'well'}"


def scenario(name: str) -> Scenario:
    return next(s for s in SCENARIOS if s.name == name)


def fault(name: str) -> Fault:
    return next(f for f in FAULTS if f.name == name)


def combinations() -> Sequence[tuple[Scenario, Fault]]:
    """Every scenario with every fault that can matter in it."""
    return [(s, f) for s in SCENARIOS for f in FAULTS if f.concerns(s)]
