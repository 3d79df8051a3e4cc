"""Parsers under bytes that are wrong: what they may say is in tests/fuzz/targets.py. Longer: ``make fuzz``."""

import random
from pathlib import Path

import pytest

from tests.fuzz.inputs import faulty, reshaped
from tests.fuzz.targets import FILES, MEMORY, Target, files

SEED = 5
RUNS = [
    pytest.param(400, id="sample"),
    pytest.param(200_000, id="long", marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
]


def fuzz(target: Target, seeds: tuple[bytes, ...], count: int) -> None:
    """Mutants of the seeds, and mutants of mutants."""
    dice = random.Random(SEED)
    stock = list(seeds)
    for seed in stock:
        target(seed)
    for _ in range(count):
        raw = dice.choice(stock)
        raw = reshaped(raw, dice) if dice.random() < 0.5 else faulty(raw, dice, stock)
        try:
            target(raw)
        except Exception as error:  # whatever a parser lets out is the finding
            raise AssertionError(f"found: {raw!r}") from error
        if len(stock) < 4 * len(seeds) and len(raw) < 3000:
            stock.append(raw)


@pytest.mark.parametrize("count", RUNS)
@pytest.mark.parametrize("name", MEMORY)
def test_parsers(name: str, count: int) -> None:
    fuzz(MEMORY[name].target, MEMORY[name].seeds, count)


@pytest.mark.parametrize("count", RUNS)
@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path: Path, name: str, count: int) -> None:
    fuzz(files(tmp_path)[name], FILES[name], count)
