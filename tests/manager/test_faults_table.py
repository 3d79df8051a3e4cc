"""Every row of the fault list that concerns the manager has a test that exists."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.manager.fault_rows import ROWS
from tests.support.source import ROOT

DUE = {*range(14, 56)}


@cache
def functions(path: Path) -> frozenset[str]:
    """The test functions that a file defines, those in classes included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_row_that_is_due_has_a_test() -> None:
    assert set(ROWS) == DUE
    assert [row for row, tests in ROWS.items() if not tests] == []


@pytest.mark.parametrize("row", sorted(ROWS))
def test_the_tests_of_a_row_exist(row: int) -> None:
    missing = []
    for test in ROWS[row]:
        path, _, name = test.partition("::")
        file = ROOT / "tests" / path
        if not name.startswith("test_") or not file.exists() or name not in functions(file):
            missing.append(test)
    assert missing == []
