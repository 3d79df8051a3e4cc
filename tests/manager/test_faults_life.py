"""A pod that does not become or stay what it should be (F24 to F28): replaced within limits, and never dearer."""

import json

import pytest

from tests.manager.passes import alive, calls, creates, overlapping, until
from tests.manager.test_proxy_process import QUESTION, answered
from tests.support.install import Install


def missing_for_good(install: Install) -> None:
    """Passes until a pod that list and look-up do not show counts as gone."""
    install.manage()
    install.sim.advance(21)
    install.manage()


# --- F24: never ready
@pytest.mark.parametrize("why", ["never_ready", "stuck", "wrong_model"])
def test_a_pod_that_is_never_ready_is_ended_in_time_with_a_limited_number_of_tries(
    install: Install, why: str
) -> None:
    install.write(startup_timeout_seconds=60, max_restarts=1)
    install.sim.set(**{why: True})
    for attempt in (1, 2):
        install.manage().expect()
        install.sim.advance(50)
        install.manage().expect()
        assert (len(alive(install)), creates(install)) == (1, attempt)
        install.sim.advance(11)
        install.manage()
        assert alive(install) == []
    assert "gave up" in install.manage().out
    assert "not ready" in install.state()["error"]
    bill = install.sim.bill()["total_usd"]
    install.sim.advance(3000)
    install.manage().expect()
    assert creates(install) == 2, "no loop that bills"
    assert install.sim.bill()["total_usd"] == pytest.approx(bill)


def test_a_pod_that_is_never_ready_is_ended_by_the_id_on_disk_whatever_its_name_became(
    install: Install,
) -> None:
    install.write(startup_timeout_seconds=60, max_restarts=0)
    install.sim.set(never_ready=True)
    install.manage().expect()
    pod = install.state()["instance_id"]
    install.console("PATCH", f"/v2/pods/{pod}", {"name": "not llmpod's any more"})
    install.sim.advance(61)
    install.manage()
    assert alive(install) == []


def test_the_last_log_lines_of_a_pod_that_was_never_ready_are_kept(install: Install) -> None:
    install.write(startup_timeout_seconds=60, max_restarts=0)
    install.sim.set(load_seconds=1000)
    install.manage().expect()
    install.sim.advance(61)
    said = install.manage("--verbose").out
    assert "its last log lines are in" in said
    place = said.partition("its last log lines are in ")[2].splitlines()[0].strip()
    with open(place, encoding="utf-8") as file:
        assert "Starting to load model org/tiny-chat" in file.read()


# --- F25: stopped, or its container restarted
def test_a_pod_that_was_stopped_is_replaced_and_meanwhile_requests_are_told_when_to_come_again(
    install: Install,
) -> None:
    install.proxy = True
    pod = until(install, "ready")["instance_id"]
    install.sim.set(container_seconds=1000)
    install.console("POST", f"/v2/pods/{pod}/action", {"action": "stop"})
    install.manage().expect()
    assert alive(install) == [], "the first look is enough"
    until(install, "created", most=3)
    refused = answered(install, QUESTION, 503)
    assert refused.json()["error"]["code"] == "model_not_ready"
    assert int(refused.headers["Retry-After"]) > 0
    install.sim.advance(1000)
    until(install, "ready")
    assert answered(install, QUESTION).headers["X-Cache"] == "MISS"
    assert overlapping(install.sim.state()["pods"]) == []


@pytest.mark.parametrize("why", ["self_exits", "error_state"])
def test_a_pod_that_exits_by_itself_is_seen_by_the_next_pass(install: Install, why: str) -> None:
    install.sim.set(**{why: True}, fate_seconds=100.0)
    first = until(install, "ready")["instance_id"]
    install.sim.set(**{why: False})
    install.sim.advance(101)
    install.manage().expect()
    assert alive(install) == []
    second = until(install, "created", most=3)["instance_id"]
    assert alive(install) == [second] != [first]
    assert overlapping(install.sim.state()["pods"]) == []


def test_a_container_that_restarted_is_waited_for_and_the_pod_is_kept(install: Install) -> None:
    pod = until(install, "ready")["instance_id"]
    install.sim.advance(100)
    install.manage().expect()
    install.sim.kill(pod)
    install.manage().expect()
    assert until(install, "ready")["instance_id"] == pod
    assert (alive(install), creates(install)) == ([pod], 1)


# --- F26: vanished
def test_a_pod_that_vanished_is_replaced_where_the_user_wants_that_and_its_id_is_not_used_again(
    install: Install,
) -> None:
    install.write(on_vanished="restart")
    first = until(install, "ready")
    install.sim.advance(10)
    install.console("DELETE", f"/v2/pods/{first['instance_id']}")
    missing_for_good(install)
    second = until(install, "ready")
    assert second["instance_id"] != first["instance_id"]
    assert second["name"] != first["name"]
    assert alive(install) == [second["instance_id"]]
    asked = [r["path"] for r in install.sim.requests()]
    last = len(asked) - asked[::-1].index("/v2/pods")
    assert not [path for path in asked[last:] if str(first["instance_id"]) in path]
    assert second["deadline"] == first["deadline"], "its time goes on"


# --- F27: ended by a person
def test_a_pod_that_a_person_ended_stays_away_until_the_next_demand(install: Install) -> None:
    pod = until(install, "ready")["instance_id"]
    install.sim.advance(10)
    install.console("DELETE", f"/v2/pods/{pod}")
    missing_for_good(install)
    for _ in range(2):
        install.sim.advance(600)
        install.manage().expect()
    assert (install.state()["phase"], creates(install)) == ("failed", 1)
    assert "vanished" in install.state()["error"]
    install.manage("up").expect()
    until(install, "ready")
    assert (len(alive(install)), creates(install)) == (1, 2)


def test_requests_after_a_person_ended_the_pod_are_told_so(install: Install) -> None:
    install.proxy = True
    pod = until(install, "ready")["instance_id"]
    install.sim.advance(10)
    install.console("DELETE", f"/v2/pods/{pod}")
    missing_for_good(install)
    refused = answered(install, QUESTION, 503)
    assert "vanished" in refused.json()["error"]["message"]
    assert "manage_pod.py up" in refused.json()["error"]["message"]


# --- F28: dearer than allowed
def test_nothing_dearer_than_the_cap_is_created(install: Install) -> None:
    install.write(max_hourly_cost=0.01)
    assert "over the cap of $0.01/h" in install.manage().expect(75).out
    assert (calls(install, "POST"), alive(install)) == ([], [])


def test_of_two_types_the_one_under_the_cap_is_taken(install: Install) -> None:
    """In the order of preference the dearer one comes first."""
    install.manage("--refresh-catalog").expect()
    prices = sorted(_price(install, gpu) for gpu in ("NVIDIA L4", "NVIDIA A40"))
    install.write(max_hourly_cost=(prices[0] + prices[1]) / 2)
    record = until(install, "ready")
    assert record["usd_per_hour"] == prices[0]
    assert creates(install) == 1


def test_a_pod_that_turns_out_dearer_than_its_list_price_and_the_cap_is_ended(install: Install) -> None:
    """The price of a minute ago was below the cap, the one on the bill is not."""
    install.write(gpu_type_id=["NVIDIA L4"], max_hourly_cost=0.2, max_restarts=0)
    install.manage("--refresh-catalog").expect()
    path = install.directory / ".llmpod" / "pod_state" / "catalog.json"
    catalog = json.loads(path.read_text())
    for gpu in catalog["gpus"]:
        gpu["usd_per_hour"] = dict.fromkeys(gpu["usd_per_hour"], 0.1)
    path.write_text(json.dumps(catalog))
    install.manage().expect()
    assert creates(install) == 1
    install.manage()
    assert alive(install) == []
    assert "max_hourly_cost" in until(install, "failed", most=3)["error"]
    install.sim.advance(3000)
    install.manage().expect()
    assert creates(install) == 1


def _price(install: Install, gpu: str) -> float:
    """What the provider's catalog says a SECURE machine of that type costs."""
    listed = install.console("GET", "/v2/catalog/gpus")
    item = next(i for i in listed["gpus"] if i["id"] == gpu)
    return float(item["price"]["secure"])
