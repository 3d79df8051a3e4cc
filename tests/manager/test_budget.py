"""The budget bounds every run: what it buys is armed in the pod, and nothing is bought that it does not cover."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.install import Install


def env_of(install: Install) -> dict[str, str]:
    env: dict[str, str] = install.console("GET", f"/v2/pods/{install.sim.alive()[0]['id']}")["env"]
    return env


def events(install: Install, kind: str) -> list[dict[str, Any]]:
    path = install.directory / ".llmpod/pod_state/events.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def a_quiet_hour(install: Install) -> None:
    """Move the provider's clock to early in a UTC day, so that no midnight falls into the test."""
    now = datetime.fromtimestamp(install.sim.state()["now"], UTC)
    morning = (now + timedelta(days=1)).replace(hour=1, minute=0, second=0, microsecond=0)
    install.sim.advance((morning - now).total_seconds())


@pytest.mark.parametrize("period", ["per_day_usd", "per_month_usd"])
def test_a_run_ends_when_the_budget_does(install: Install, period: str) -> None:
    a_quiet_hour(install)
    install.manage("--refresh-catalog").expect()
    install.write(budget={period: 0.10}, gpu_type_id="NVIDIA L4", runtime_seconds=7200)
    status = install.passes_until("ready")
    bought = 0.10 / status["usd_per_hour"] * 3600
    armed = int(env_of(install)["LLMPOD_DEADLINE"])
    assert armed == pytest.approx(status["created_at"] + bought, abs=30)
    install.sim.advance(bought * 0.9)
    install.manage().expect()
    assert "budget" in events(install, "budget")[0]["text"]
    assert len(install.sim.alive()) == 1
    install.sim.advance(bought * 0.2)
    install.manage().expect()
    assert install.sim.alive() == []
    assert install.passes_until("stopped")["order"]["by"] == "budget"
    assert len(events(install, "budget")) == 2, "80 % and 100 %, each once"
    install.manage("up")
    assert install.sim.alive() == [], "nothing is bought on a budget that is used up"


def test_a_machine_that_the_budget_cannot_pay_for_a_minute_is_not_bought(install: Install) -> None:
    install.manage("--refresh-catalog").expect()
    install.write(budget={"per_day_usd": 0.001})
    refused = install.manage()
    assert refused.code == 76
    assert "0.00" in refused.out
    assert install.sim.alive() == []


def test_a_price_that_nobody_knows_cannot_be_held_to_a_budget(install: Install) -> None:
    install.write(budget={"per_day_usd": 5.0})
    install.sim.fault("catalog", "500", times=20)
    assert install.manage().code in (75, 76)
    assert install.sim.alive() == []
