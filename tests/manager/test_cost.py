"""`cost` as a person or a script calls it, when everybody answers."""

import os
import pty
import re
from datetime import UTC, datetime, timedelta

import pytest
import requests

from llmpod.lifecycle.spending import day_of, month_of
from llmpod.model import Observed
from tests.lifecycle.entries import HOUR, machine
from tests.manager.costs import away_from_the_months_end, cost, snapshot, told, without_key, write_past
from tests.support.install import Install
from tests.support.wait import eventually


@pytest.fixture
def install(install: Install) -> Install:
    install.write(runpod_graphql_url=install.sim.api_url + "/graphql")
    return install


@pytest.fixture
def noon() -> float:
    """Noon of yesterday: over, whenever the tests run."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - timedelta(hours=12)).timestamp()


def test_nothing_yet(install: Install) -> None:
    found = cost(install)
    assert (found["day"]["usd"], found["month"]["usd"], found["live"], found["models"]) == (0.0, 0.0, [], [])
    assert found["worst_case"] == {"usd": 0.0, "until": None, "unknown": []}
    assert found["budget"] is None
    assert len(found["days"]) == 14
    assert "nothing runs" in told(install).out


def test_a_running_pod_its_bill_and_the_account(install: Install) -> None:
    away_from_the_months_end(install)
    install.sim.set(balance_usd=50.0)
    status = install.passes_until("ready")
    install.sim.advance(1800)
    install.manage().expect()
    found = cost(install)
    rate = status["usd_per_hour"]
    [live] = found["live"]
    assert (live["pod_id"], live["usd_per_hour"], live["model"]) == (status["pod_id"], rate, "org/tiny-chat")
    assert live["usd"] == pytest.approx(rate / 2, rel=0.05)
    assert found["month"]["usd"] == pytest.approx(install.sim.bill()["total_usd"], rel=0.05)
    assert found["models"][0]["month_usd"] == found["month"]["usd"]
    assert found["account"]["balance_usd"] == pytest.approx(50 - rate / 2, rel=0.01)
    assert found["account"]["hours_left"] == pytest.approx(50 / rate, rel=0.02)
    assert found["worst_case"]["usd"] == pytest.approx(
        (live["deadline"] - found["at"]) / 3600 * rate, abs=1e-6
    )
    assert found["unexplained"]["alarms"] == []
    text = told(install).out
    for words in (status["pod_id"], "org/tiny-chat", "more until", "####"):
        assert words in text, text


def test_the_bill_agrees_hour_by_hour(install: Install) -> None:
    away_from_the_months_end(install)
    install.write(runtime_seconds=24 * 3600)
    pod = install.passes_until("ready")["pod_id"]
    install.sim.advance(3 * HOUR)
    install.manage().expect()
    billed = cost(install)["billed"]
    assert billed["usd"] > 0
    assert abs(billed["difference_usd"]) < 0.01
    assert (billed["others_usd"], billed["why"]) == (0.0, "")
    assert [p["pod_id"] for p in billed["pods"]] == [pod]
    install.sim.set(billing_lag_seconds=2 * HOUR)
    late = cost(install)["billed"]
    assert late["difference_usd"] > 0.4
    assert "more than billed (the bill lags behind)" in told(install).out


def test_a_pod_that_ended_between_two_passes_is_ended_here_too(install: Install) -> None:
    """The listing is fresher than the ledger; the file is not touched for that."""
    pod = install.passes_until("ready")["pod_id"]
    install.console("DELETE", f"/v2/pods/{pod}")
    before = snapshot(install.directory)
    assert cost(install)["live"] == []
    assert snapshot(install.directory) == before
    assert [live["pod_id"] for live in without_key(install)["live"]] == [pod]


def test_a_foreign_pod_is_reported_and_never_touched(install: Install) -> None:
    install.passes_until("ready")
    body = {
        "name": "my-notebook",
        "image": "jupyter",
        "gpu": {"id": "NVIDIA L4", "count": 1},
        "disk": 50,
        "cloud": "SECURE",
    }
    theirs = install.console("POST", "/v2/pods", body)["id"]
    install.sim.set(other_usd_per_hour=3.0)
    found = cost(install)["unexplained"]
    assert [(f["pod_id"], f["name"]) for f in found["foreign"]] == [(theirs, "my-notebook")]
    assert found["stray_usd_per_hour"] == pytest.approx(3.0)
    assert len(found["alarms"]) == 2
    assert "my-notebook" in told(install).out
    assert theirs in [pod["id"] for pod in install.sim.alive()]


def test_the_budget(install: Install) -> None:
    install.write(budget={"per_day_usd": 10.0, "per_month_usd": 1000.0})
    install.passes_until("ready")
    budget = cost(install)["budget"]
    assert (budget["binding"], budget["exhausted"]) == ("per_day", False)
    assert budget["left_usd"] == pytest.approx(10.0, abs=0.01)
    assert [limit["kind"] for limit in budget["limits"]] == ["per_day", "per_month"]
    assert " of $10.00 (0%)" in told(install).out


def test_a_used_up_budget(install: Install) -> None:
    now = datetime.now(UTC).timestamp()
    start = max(day_of(now)[0], month_of(now)[0])
    write_past(install, (machine("p1", 3600.0, created=max(start, now - 60)), now))
    install.write(budget={"per_month_usd": 0.01})
    found = cost(install)["budget"]
    assert (found["exhausted"], found["left_usd"], found["binding"]) == (True, 0.0, "per_month")
    assert "used up this month; it renews" in told(install).out


def test_what_the_cache_saved(install: Install) -> None:
    install.proxy = True
    install.sim.set(first_token_seconds=0.3)
    rate = install.passes_until("ready")["usd_per_hour"]
    question = {"model": "org/tiny-chat", "messages": [{"role": "user", "content": "Hello"}]}

    def ask() -> str:
        answer = requests.post(
            f"http://127.0.0.1:{install.port}/v1/chat/completions", json=question, timeout=30
        )
        return answer.headers.get("X-Cache", "") if answer.status_code == 200 else ""

    assert eventually(ask) == "MISS"
    assert [ask() for _ in range(3)] == ["HIT"] * 3
    cache = cost(install)["cache"]
    assert (cache["answers"], cache["usd_per_hour"], cache["why"]) == (3, rate, "")
    assert cache["model_seconds"] > 0
    assert cache["usd"] == pytest.approx(cache["model_seconds"] / 3600 * rate)
    assert "3 answers without the model" in told(install).out
    assert "(estimate)" in told(install).out


def test_at_a_terminal_the_days_are_drawn(install: Install, noon: float) -> None:
    write_past(install, (machine("p1", 2.0, created=noon), noon + HOUR))
    over = (
        datetime.now(UTC).timestamp() - 5.0
    )  # RunPod's clock tells whole seconds: what is over must be over there
    write_past(install, (machine("p2", 3600.0, created=over - 0.5, observed=Observed.RUNNING), over))
    master, slave = pty.openpty()
    env = {**install.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
    pid = os.posix_spawn(
        install.argv()[0],
        install.argv("cost"),
        env,
        file_actions=[(os.POSIX_SPAWN_DUP2, slave, n) for n in (0, 1, 2)],
    )
    os.close(slave)
    text = _read_all(master)
    os.waitpid(pid, 0)
    assert "█" * 40 in text, text
    assert re.search(r"█{10}[▏▎▍▌▋▊▉ ]", text), "half a dollar beside two"
    assert "####" not in text


def _read_all(master: int) -> str:
    """Until the other end is closed, which Linux reports as EIO."""
    pieces = []
    with open(master, "rb", buffering=0) as terminal:
        try:
            while piece := terminal.read(65536):
                pieces.append(piece)
        except OSError:
            pass
    return b"".join(pieces).decode("utf-8", "replace")
