"""docs/security.md names every threat and every fault, and the tests it names exist."""

import re

import pytest

from tests.support.source import ROOT

TEXT = (ROOT / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", TEXT)))


def rows(letter: str) -> list[int]:
    """The numbers of the rows of a table; ``F14-F18`` is five."""
    found: list[int] = []
    for first, last in re.findall(rf"^\| {letter}(\d+)(?:-{letter}(\d+))? \|", TEXT, re.MULTILINE):
        found += range(int(first), int(last or first) + 1)
    return found


@pytest.mark.parametrize(("letter", "last"), [("T", 35), ("F", 64)])
def test_every_row_is_there_once(letter: str, last: int) -> None:
    assert rows(letter) == list(range(1, last + 1))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_what_it_names_exists(path: str, name: str) -> None:
    place = ROOT / path if path.startswith(("tests/", "llmpod/")) else ROOT / "tests" / path
    assert place.is_file()
    assert f"def {name}(" in place.read_text() or not name


def test_every_row_names_a_test() -> None:
    lines = re.findall(r"^\| [TF]\d.*$", TEXT, re.MULTILINE)
    assert len(lines) > 70
    assert [line for line in lines if ".py" not in line] == []
