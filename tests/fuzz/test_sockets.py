"""The whole proxy under raw input: no answer that blames itself, no trace, no hang, no growth (bar G5)."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.inputs import inputs
from tests.fuzz.volley import volley
from tests.proxy.front import Proxy, proxy, settings
from tests.proxy.stub import Turn, chat, frames, stub

MIB = 2**20
SEED = 20_261_121
WARM = 1_500
CHUNKS = [
    pytest.param(SEED + number, 125_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])
    for number in range(1, 9)
]


def whatever(turn: Turn) -> None:
    """A model server that has an answer to everything."""
    if b'"stream": true' in turn.body:
        turn.stream()
        turn.chunk(b"".join(frames("whatever")))
        turn.last()
    else:
        turn.reply(chat("whatever"))


@pytest.fixture
def besieged(tmp_path: Path, env: dict[str, str]) -> Iterator[Proxy]:
    environ = settings(tmp_path / "cache", LOG_LEVEL="INFO", ENABLE_PROFILING="1")
    with stub() as server, proxy(env | environ | {"RUNPOD_ENDPOINT": server.url}) as front:
        server.script = whatever
        yield front


@pytest.mark.parametrize(("seed", "count"), [(SEED, 20_000), *CHUNKS])
def test_raw_input_by_chance(besieged: Proxy, seed: int, count: int) -> None:
    """20,000 connections in every run, a million in the long one."""
    volley(besieged.port, inputs(WARM, seed=seed - 100))
    before = _resident(besieged)
    tally = volley(besieged.port, inputs(count, seed=seed))
    assert tally.sent == count
    assert not tally.faults, tally.faults[:3]
    assert tally.answered > count * 0.6
    assert tally.served > count * 0.05
    late = volley(
        besieged.port, tally.late
    ).late  # a machine that was busy is not late twice for the same input
    assert not late, late[:3]
    growth = _resident(besieged) - before
    sys.stdout.write(
        f"{tally.answered} of {count} answered, {tally.served} served, {growth / MIB:+.1f} MiB\n"
    )
    assert growth < 16 * MIB
    assert besieged.get("/livez").status == 200
    assert all(isinstance(json.loads(line), dict) for line in besieged.process.err.splitlines())


def _resident(front: Proxy) -> int:
    with open(f"/proc/{front.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))
