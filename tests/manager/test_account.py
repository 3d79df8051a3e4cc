"""What the account shows beside our pods: foreign ones are named and left alone, unexplained spending is told."""

import json
from typing import Any

from tests.support.install import Install

FOREIGN = {
    "name": "somebody-else",
    "image": "vllm/vllm-openai:v0.29.0",
    "gpu": {"id": "NVIDIA L4", "count": 1},
    "disk": 60,
}


def leaks(install: Install) -> list[str]:
    path = install.directory / ".llmpod/pod_state/events.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [event["text"] for event in map(json.loads, lines) if event["kind"] == "leak"]


def document(install: Install) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(install.manage("status", "--json").expect().out)
    return found


def test_a_foreign_pod_is_named_and_left_alone(install: Install) -> None:
    foreign = install.console("POST", "/v2/pods", FOREIGN)["id"]
    install.passes_until("ready")
    assert list(document(install)["foreign_pods"]) == [foreign]
    assert foreign in install.manage("status").expect().out
    install.manage("--shutdown").expect()
    assert [pod["id"] for pod in install.sim.alive()] == [foreign]
    assert leaks(install) == []


def test_spending_that_no_pod_explains_is_told_when_a_second_look_confirms_it(install: Install) -> None:
    install.write(runtime_seconds=7 * 24 * 3600, heartbeat_seconds=None)
    install.sim.set(other_usd_per_hour=0.70)
    install.passes_until("ready")
    install.manage().expect()
    assert leaks(install) == [], "RunPod's figure may lag behind"
    install.sim.advance(300)
    for _ in range(2):
        install.manage().expect()
    assert ["$0.70/h are unexplained" in text for text in leaks(install)] == [True], "once a day"
    for _ in range(2):
        install.sim.advance(25 * 3600)
        install.manage().expect()
    assert len(leaks(install)) > 1


def test_a_lagging_figure_is_no_alarm(install: Install) -> None:
    install.sim.set(other_usd_per_hour=0.70)
    install.passes_until("ready")
    install.manage().expect()
    install.sim.set(other_usd_per_hour=0.0)
    for _ in range(3):
        install.sim.advance(300)
        install.manage().expect()
    assert leaks(install) == []


def test_what_is_not_known_is_no_alarm(install: Install) -> None:
    install.sim.set(graphql_retired=True, other_usd_per_hour=0.70)
    install.passes_until("ready")
    assert leaks(install) == []


def test_the_account_is_asked_once_an_hour(install: Install) -> None:
    install.passes_until("ready")
    for _ in range(3):
        install.manage().expect()
    asked = [r for r in install.sim.requests() if r["path"] == "/graphql"]
    assert len(asked) == 1


def test_a_failed_start_leaves_its_last_log_lines(install: Install) -> None:
    install.sim.set(never_ready=True)
    install.write(startup_timeout_seconds=60, max_restarts=0)
    install.manage().expect()
    install.sim.advance(90)
    told = install.manage("--verbose").out + install.manage("--verbose").out
    kept = install.directory / ".llmpod/pod_state/failed_start.log"
    assert "last log lines" in told
    assert "Starting to load" in kept.read_text() or "start container" in kept.read_text()
    assert install.sim.alive() == []
