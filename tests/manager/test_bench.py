"""The command `bench` through the front door: one long answer is timed, kept, and compared with the last ones."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmpod.cli.bench import compared, earlier
from tests.support.desk import MODEL, Desk
from tests.support.net import listens
from tests.support.wait import eventually


@pytest.fixture
def desk(state_dir: Path, env: dict[str, str]) -> Iterator[Desk]:
    made = Desk(state_dir, env)
    yield made
    made.manage("--shutdown").expect()


def test_a_run_is_timed_kept_and_compared(desk: Desk) -> None:
    desk.write([sys.executable, "-m", "llmpod.sim.vllm", "--model", MODEL, "--tokens-per-second", "200"])
    done = desk.manage("bench")
    assert done.code != 0
    assert "No model is ready" in done.err + done.out
    desk.manage().expect()
    desk.passes_until("ready")
    eventually(lambda: listens(desk.port), within=20)
    first = json.loads(desk.manage("bench", "--tokens", "60", "--json").expect().out)
    assert first["run"]["tokens"] == 60
    assert first["run"]["counted"]
    assert 0 < first["run"]["tokens_per_second"] <= 300
    assert first["run"]["start_seconds"] is not None
    assert first["earlier_runs"] == 0
    second = desk.manage("bench", "--tokens", "60").expect().out
    assert "median of 1 earlier run" in second
    assert "tokens a second" in second
    history = (desk.directory / ".llmpod" / "pod_state" / "bench.jsonl").read_text().splitlines()
    assert len(history) == 2


RUN = {"backend": "process", "model": "org/m", "gpu": "this", "tokens": 100, "seconds": 2.0}
FIGURES = {"first_token_seconds": 0.1, "tokens_per_second": 50.0, "start_seconds": None}


def test_only_runs_of_the_same_kind_are_compared(tmp_path: Path) -> None:
    now = {**RUN, **FIGURES}
    lines = [now, {**now, "gpu": "another"}, {**now, "tokens": 1000}, {**now, "tokens_per_second": 100.0}]
    path = tmp_path / "bench.jsonl"
    path.write_text("\n".join([*map(json.dumps, lines), '{"torn', "[]", "7", ""]))
    before = earlier(path, now)
    assert [run["tokens_per_second"] for run in before] == [50.0, 100.0]
    rate = compared(now, before)["tokens_per_second"]
    assert (rate["before"], round(rate["change_percent"] or 0)) == (75.0, -33)
    assert compared(now, before)["start_seconds"] == {"now": None, "before": None, "change_percent": None}
    assert earlier(tmp_path / "none", now) == []
