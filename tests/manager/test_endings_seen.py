"""Ends that happened without us, and orders without a key: nothing hangs, nothing is forgotten, nobody is misled."""

import json

import pytest

from tests.manager.costs import away_from_the_months_end
from tests.manager.passes import alive, until
from tests.support.install import Install
from tests.support.process import run


def leaks(install: Install) -> list[str]:
    path = install.directory / ".llmpod/pod_state/events.jsonl"
    events = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [event["text"] for event in events if event["kind"] == "leak"]


@pytest.mark.parametrize("call", ["--shutdown", "down"])
def test_a_pod_that_ended_itself_is_taken_for_gone_soon(install: Install, call: str) -> None:
    install.write(create_grace_seconds=600, runtime_seconds=60)
    pod = until(install, "ready")["instance_id"]
    install.sim.advance(61)
    install.console("DELETE", f"/v2/pods/{pod}")  # as its own switch does
    install.manage()
    for _ in range(3):
        install.sim.advance(15)
        install.manage()
    assert install.state()["phase"] == "stopped"
    assert leaks(install) == []
    install.manage(call, within=20).expect()


def test_after_panic_up_starts_afresh(install: Install) -> None:
    first = until(install, "ready")["instance_id"]
    install.manage("panic").expect()
    assert install.state()["phase"] == "stopped"
    install.manage("up")
    assert alive(install) not in ([], [first])


def test_panic_with_a_refused_key_says_so_once(install: Install) -> None:
    until(install, "ready")
    install.sim.fault("list", "401", times=50)
    done = install.manage("panic", within=30)
    assert done.code == 77
    assert done.err.count("401") == 1
    assert "console.runpod.io/pods" in done.err


def test_a_shutdown_without_a_key_is_an_order_all_the_same(install: Install) -> None:
    pod = until(install, "ready")["instance_id"]
    keyless = {name: value for name, value in install.environ.items() if name != "RUNPOD_API_KEY"}
    done = run(install.argv("--shutdown"), env=keyless, within=30)
    assert done.code == 77
    assert pod in done.err
    assert "/h until" in done.err
    install.manage()
    install.manage()
    assert alive(install) == []


def test_up_on_a_used_up_budget_is_refused(install: Install) -> None:
    install.manage("--refresh-catalog").expect()
    away_from_the_months_end(install)
    install.write(budget={"per_month_usd": 0.02}, gpu_type_id="NVIDIA L4")
    until(install, "ready")
    install.sim.advance(200)
    install.manage()
    install.manage()
    done = install.manage("up")
    assert done.code == 76, done
    assert alive(install) == []


def test_status_with_a_broken_configuration_goes_by_the_last_good_one(install: Install) -> None:
    pod = until(install, "ready")["instance_id"]
    install.path.write_text("{")
    done = install.manage("status").expect(78)
    assert pod in done.out
    assert "last good" in done.err


def test_plan_promises_no_start_that_cannot_be(install: Install) -> None:
    install.write(max_hourly_cost=0.01)
    done = install.manage("plan").expect()
    assert "would start nothing" in done.out
    install.write(gpu_type_id="RTX A6000", max_hourly_cost=None)
    assert "Nearest: NVIDIA RTX A6000" in install.manage("plan").expect().out
