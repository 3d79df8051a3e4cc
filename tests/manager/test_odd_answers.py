"""What RunPod answers otherwise than written hides no pod, ends none early and makes none twice."""

import pytest

from tests.manager.costs import away_from_the_months_end
from tests.manager.front import Pod, front
from tests.manager.passes import alive, creates, pass_deadline, until
from tests.support.forks import Forks
from tests.support.install import Install
from tests.support.wait import eventually


def odd_uptime(pod: Pod) -> None:
    if pod.get("runtime"):
        pod["runtime"]["uptime"] = None


def odd_price(pod: Pod) -> None:
    pod["cost"] = {"usd": "much"}


def odd_gpu(pod: Pod) -> None:
    pod["gpu"] = {"id": ["?"], "count": "one"}


def zero_time(pod: Pod) -> None:
    pod["createdAt"] = "0001-01-01T00:00:00Z"


def no_price(pod: Pod) -> None:
    pod.pop("cost", None)


@pytest.mark.parametrize("odd", [odd_uptime, odd_price, odd_gpu, zero_time])
@pytest.mark.parametrize(("call", "times"), [((), 2), (("--shutdown",), 2), (("panic",), 1)])
def test_one_odd_field_hides_no_pod(install: Install, odd: object, call: tuple[str, ...], times: int) -> None:
    with front(install.sim.api_url, pod=odd) as url:  # type: ignore[arg-type]
        install.write(runpod_api_url=url)
        until(install, "ready")
        assert len(alive(install)) == 1
        pass_deadline(install)
        for _ in range(times):
            assert "Traceback" not in install.manage(*call).err
        assert alive(install) == []


def test_a_zero_time_of_creation_is_no_age(install: Install) -> None:
    with front(install.sim.api_url, pod=zero_time) as url:
        install.write(runpod_api_url=url, budget={"per_day_usd": 3}, max_hourly_cost=1)
        until(install, "ready")
        assert len(alive(install)) == 1


@pytest.mark.parametrize("status", [200, 202, 206])
def test_any_success_of_a_create_is_one(install: Install, status: int) -> None:
    with front(install.sim.api_url, created=status) as url:
        install.write(runpod_api_url=url)
        until(install, "ready")
        assert (creates(install), len(alive(install))) == (1, 1)


@pytest.mark.parametrize("status", ["408", "409", "425", "499"])
def test_a_refusal_that_proves_nothing_is_unclear(install: Install, status: str) -> None:
    install.write(create_grace_seconds=120)
    install.sim.set(listing_lag_seconds=100)
    install.sim.fault("create", f"created_then_{status}")
    for _ in range(3):
        install.manage()
        install.sim.advance(50)
    assert (creates(install), len(alive(install))) == (1, 1)


def test_a_budget_holds_although_nobody_says_what_is_billed(install: Install) -> None:
    with front(install.sim.api_url, pod=no_price) as url:
        away_from_the_months_end(install)
        install.write(runpod_api_url=url, budget={"per_month_usd": 0.5}, runtime_seconds=12 * 3600)
        install.write(heartbeat_seconds=None)
        for _ in range(18):
            install.manage()
            install.sim.advance(600)
        assert 0 < install.sim.bill()["total_usd"] < 0.65


def test_panic_waits_for_a_create_that_is_under_way(install: Install, forks: Forks) -> None:
    install.sim.fault("create", "slow=3")
    install.sim.set(listing_lag_seconds=3)
    with forks.running(install.argv(), env=install.environ) as starting:
        eventually(
            lambda: any(r["path"] == "/v2/pods" and r["method"] == "GET" for r in install.sim.requests())
        )
        install.manage("panic", within=120)
        starting.wait(within=30)
    assert alive(install) == []


def test_a_refused_key_is_said_at_once(install: Install) -> None:
    until(install, "ready")
    install.sim.fault("list", "401", times=20)
    install.sim.fault("delete", "401", times=20)
    done = install.manage("--shutdown", within=30)
    assert done.code == 77
    assert "401" in done.err
