"""G1: managers killed at every syscall and at every failpoint, in twelve situations, crossed with faults of RunPod.

Each cell is played with whole processes: manage_pod.py in a forked interpreter that has its libraries loaded already
(see zygote.py), killed by SIGKILL: at a failpoint by itself, at a syscall by strace. A few are started from nothing,
as cron does it. What must hold in each of them stands in field.py.

The normal suite plays a seeded sample. The long one plays every moment of every situation without a fault, and of
each situation with each fault that concerns it a seeded sample and pairs of kills.
"""

import random
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from tests.sweep.cells import Cell, Outcome, combinations
from tests.sweep.field import Field, open_field, start_account
from tests.sweep.managers import Kill, no_strace
from tests.sweep.scenarios import FAULTS, NO_FAULT, SCENARIOS, Fault, Scenario

SEED = 20261121
SAMPLE_OF_SCENARIO = 17  # times twelve situations
SAMPLE_OF_COMBINATION = 5
PAIRS_OF_COMBINATION = 1
WORKERS = 2
CELLS_NORMAL, CELLS_LONG = 200, 2000


def moments(field: Field, scenario: Scenario, fault: Fault = NO_FAULT) -> list[tuple[int, Kill]]:
    """All kills that are possible here: the number of the call, and when in it."""
    found = field.moments(scenario, fault)
    return [(index, kill) for index, kills in found.items() for kill in kills]


def faults_of(scenario: Scenario) -> list[Fault]:
    return [fault for fault in FAULTS if fault.concerns(scenario)]


def sample(field: Field, scenario: Scenario) -> list[Cell]:
    """Some cells of a situation: a fault after the other, kills drawn by lot, half of them failpoints."""
    dice = random.Random(f"{SEED} {scenario.name}")
    possible = moments(field, scenario)
    points = [m for m in possible if not m[1].syscall]
    syscalls = [m for m in possible if m[1].syscall] or points
    faults = faults_of(scenario)
    dice.shuffle(faults)
    cells = []
    for n in range(SAMPLE_OF_SCENARIO):
        index, kill = dice.choice(syscalls if n % 2 else points)
        cells.append(Cell(scenario, faults[n % len(faults)], {index: kill}))
    return cells


def whole(field: Field, scenario: Scenario, fault: Fault) -> list[Cell]:
    """Every single kill of a situation without a fault; with one, a sample of them, and of pairs."""
    possible = moments(field, scenario, fault)
    dice = random.Random(f"{SEED} {scenario.name} {fault.name}")
    if fault is not NO_FAULT:
        possible = dice.sample(possible, min(len(possible), SAMPLE_OF_COMBINATION))
    pairs = [dice.sample(possible, 2) for _ in range(PAIRS_OF_COMBINATION)]
    cells = [Cell(scenario, fault, {index: kill}) for index, kill in possible]
    return cells + [Cell(scenario, fault, {1 + a[0]: a[1], b[0]: b[1]}) for a, b in pairs]


def judged(outcomes: Iterable[Outcome], begun: float) -> str:
    """The figures, in a line. Raises AssertionError with every cell that went wrong."""
    played = list(outcomes)
    wrong = [str(outcome) for outcome in played if outcome.wrong]
    seconds = time.monotonic() - begun
    killed = sum(outcome.kills > 0 for outcome in played)
    said = (
        f"{len(played)} cells, {killed} with a kill, {len(wrong)} wrong; "
        f"{seconds:.0f} s, {seconds / len(played):.2f} s a cell; "
        f"settled after {max(o.settled_after for o in played):.0f} s at most"
    )
    assert not wrong, "\n".join([said, *wrong])
    return said


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_a_sample_of_each_situation(scenario: Scenario, field: Field) -> None:
    begun = time.monotonic()
    cells = sample(field, scenario)
    outcomes = [field.play(cell) for cell in cells]
    sys.stdout.write(judged(outcomes, begun))
    assert sum(outcome.kills for outcome in outcomes) >= 0.8 * len(cells), (
        "a fault changes the calls that follow, but not so much"
    )


def test_the_sample_is_large_enough() -> None:
    assert SAMPLE_OF_SCENARIO * len(SCENARIOS) >= CELLS_NORMAL


def test_syscalls_are_swept(field: Field) -> None:
    if why := no_strace():
        pytest.skip(f"kills at failpoints only: {why}")
    possible = [kill for _, kill in moments(field, SCENARIOS[0])]
    assert sum(kill.syscall != "" for kill in possible) >= 50
    assert {"rename", "fsync", "sendto", "recvfrom"} <= {kill.syscall for kill in possible}


def test_first_starts_from_nothing(field: Field) -> None:
    """As cron starts it: a new interpreter for the call that is killed, and for the next one."""
    begun = time.monotonic()
    outcomes = [field.play(Cell(SCENARIOS[0], NO_FAULT, {0: Kill(n)}, cold=True)) for n in range(1, 9)]
    sys.stdout.write(judged(outcomes, begun))
    assert all(outcome.kills for outcome in outcomes)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_every_moment_of_every_situation() -> None:
    """At least 2,000 cells on two fields at once; the figures are printed at the end."""
    begun = time.monotonic()
    waiting = list(combinations())

    def play(field: Field) -> list[Outcome]:
        outcomes = []
        with suppress(IndexError):  # the other field took the last one
            while True:
                outcomes += [field.play(cell) for cell in whole(field, *waiting.pop())]
        return outcomes

    with ExitStack() as stack, ThreadPoolExecutor(WORKERS) as pool:
        accounts = [stack.enter_context(start_account()) for _ in range(WORKERS)]
        fields = [stack.enter_context(open_field(account)) for account in accounts]
        outcomes = [outcome for part in pool.map(play, fields) for outcome in part]
    sys.stdout.write(judged(outcomes, begun))
    assert len(outcomes) >= CELLS_LONG
