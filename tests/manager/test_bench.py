"""The command `bench` through the front door: one long answer is timed, kept, and compared with the last ones."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from llmpod.cli.bench import compared, earlier
from tests.support.desk import MODEL, Desk
from tests.support.install import Install
from tests.support.net import listens
from tests.support.source import ROOT
from tests.support.wait import eventually


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


def test_starts_are_timed_cold_and_warm_and_the_model_runs_on(desk: Desk) -> None:
    weights = desk.directory / "weights.bin"
    weights.write_bytes(bytes(3 * 2**20))
    serve = ["-m", "llmpod.sim.vllm", "--load-seconds", "0.3", "--tokens-per-second", "500", "--model", MODEL]
    command = [sys.executable, *serve, "--served-model-name", str(weights)]
    section = {"command": command, "cwd": str(ROOT), "port": desk.model_port}
    desk.configure("process", section, served_model_name="*")
    desk.manage().expect()
    desk.passes_until("ready")
    eventually(lambda: listens(desk.port), within=20)
    before = desk.state()["name"]
    first = json.loads(desk.manage("bench", "--starts", "--tokens", "20", "--json").expect().out)["run"]
    assert {"cold_start_seconds", "warm_start_seconds"} <= first.keys()
    kinds = (
        ["cold_start_seconds", "warm_start_seconds"]
        if hasattr(os, "posix_fadvise")
        else ["warm_start_seconds"]
    )
    assert all(first[kind] >= 0.3 for kind in kinds)
    assert first["start_seconds"] == first["warm_start_seconds"]
    assert desk.state()["phase"] == "ready"
    assert desk.state()["name"] != before
    assert desk.ask(str(weights))["choices"]
    starts = (desk.directory / ".llmpod" / "pod_state" / "starts.jsonl").read_text().splitlines()
    assert len(starts) == 1 + len(kinds)


@pytest.mark.long
def test_what_did_not_run_does_not_run_afterwards(desk: Desk) -> None:
    desk.write([sys.executable, "-m", "llmpod.sim.vllm", "--model", MODEL])
    desk.manage().expect()
    eventually(lambda: listens(desk.port), within=20)
    desk.manage("down").expect()
    first = desk.manage("bench", "default", "--starts", "--tokens", "20").expect()
    assert "default is stopped and started 1 time: warm (" in first.out
    done = desk.manage("bench", "--starts", "--tokens", "20").expect()
    assert re.search(r"warm start +[\d.]+ s   before [\d.]+ s, [+-]\d+ %", done.out)
    assert desk.state()["phase"] == "stopped"
    desk.manage().expect()
    assert desk.state()["phase"] == "stopped"


def test_a_start_that_fails_leaves_the_order_as_it_was(desk: Desk) -> None:
    desk.write([sys.executable, "-c", "raise SystemExit('out of memory')"], max_restarts=0)
    desk.manage("--no-proxy", "down").expect()
    refused = desk.manage("--no-proxy", "bench", "--starts")
    assert refused.code != 0
    assert "did not start" in refused.err
    status = json.loads(desk.manage("status", "--json").expect().out)
    assert status["models"]["default"]["order"]["direction"] == "down"


def test_the_order_from_before_stands_again(desk: Desk) -> None:
    """A person's `down` outlives it also where requests start the model, and an `up` keeps its end."""
    desk.write([sys.executable, "-m", "llmpod.sim.vllm", "--model", MODEL], start="on_request")
    for ordered in ("down", "up"):
        desk.manage(ordered).expect()
        before = desk.order()
        assert before["by"] == ordered
        desk.manage("bench", "default", "--starts", "--tokens", "20").expect()
        after = desk.order()
        kept = ("direction", "by", "reason", "until")
        assert [after[key] for key in kept] == [before[key] for key in kept]
    run_at = desk.state()["run_at"]
    assert run_at == desk.order()["at"]  # the run that runs is this order's


def test_what_costs_money_is_asked_for_with_its_price(install: Install) -> None:
    """A pod's start is a cold one: image and weights are fetched anew."""
    install.proxy = True
    install.manage().expect()
    install.passes_until("ready")
    eventually(lambda: listens(install.port), within=20)
    (before,) = install.sim.alive()
    refused = install.manage("bench", "--starts").expect(1)
    assert "nobody is there to say yes" in refused.err
    assert "paid from its creation" in refused.err
    assert re.search(r"\$0\.\d+", refused.err)
    assert [pod["id"] for pod in install.sim.alive()] == [before["id"]]
    run = json.loads(install.manage("bench", "--starts", "--yes", "--tokens", "20", "--json").expect().out)[
        "run"
    ]
    assert run["cold_start_seconds"] == run["start_seconds"] is not None
    assert run["warm_start_seconds"] is None
    (after,) = install.sim.alive()
    assert after["id"] != before["id"]


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
