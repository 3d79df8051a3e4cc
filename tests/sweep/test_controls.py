"""The test of the sweep: it must find bugs that are planted, and none where none is planted."""

from pathlib import Path

import pytest

from llmpod.sim.launch import Simulator
from tests.sweep.cells import Outcome
from tests.sweep.field import open_field
from tests.sweep.managers import no_strace
from tests.sweep.mutants import MUTANTS, Mutant, copy_of_the_source


def first_wrong(account: Simulator, root: Path, mutant: Mutant) -> Outcome | None:
    """The first of a control's cells in which something goes wrong, or None."""
    with open_field(account, root) as field:
        outcomes = map(field.play, mutant.cells)
        return next((outcome for outcome in outcomes if outcome.wrong), None)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_found(mutant: Mutant, account: Simulator, tmp_path: Path) -> None:
    if mutant.syscalls and (why := no_strace()):
        pytest.skip(why)
    root = copy_of_the_source(tmp_path / "source")
    mutant.apply(root)
    assert first_wrong(account, root, mutant), "the sweep is blind to it"


def test_without_a_planted_bug_the_same_cells_are_well(account: Simulator, tmp_path: Path) -> None:
    mutants = [mutant for mutant in MUTANTS if not (mutant.syscalls and no_strace())]
    cells = {str(cell): cell for mutant in mutants for cell in mutant.cells}  # some serve two mutants
    with open_field(account, copy_of_the_source(tmp_path / "source")) as field:
        outcomes = [field.play(cell) for cell in cells.values()]
    assert [str(outcome) for outcome in outcomes if outcome.wrong] == []


def test_a_stale_control_says_so(tmp_path: Path) -> None:
    root = copy_of_the_source(tmp_path / "source")
    with pytest.raises(AssertionError, match="stale"):
        Mutant("nothing", "llmpod/lifecycle/act.py", "no such text", "", ()).apply(root)
