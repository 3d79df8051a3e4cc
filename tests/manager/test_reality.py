"""Catching up with what happened to a pod behind our back: kept where it is ours, replaced where it is no good."""

import pytest

from tests.manager.passes import alive, calls, creates, edit, overlapping, until
from tests.manager.test_proxy_process import QUESTION, answered
from tests.support.install import Install


def one_after_the_other(install: Install) -> bool:
    """Whether no two pods ever cost money at the same time."""
    return overlapping(install.sim.state()["pods"]) == []


# --- stopped, without GPUs, crashing
def test_a_pod_that_came_back_without_gpus_is_replaced(install: Install) -> None:
    pod = until(install, "ready")["instance_id"]
    install.sim.set(zero_gpus=True)
    install.console("POST", f"/v2/pods/{pod}/action", {"action": "stop"})
    install.console("POST", f"/v2/pods/{pod}/action", {"action": "start"})
    assert "no GPU" in install.manage().expect().out
    second = until(install, "ready")["instance_id"]
    assert alive(install) == [second] != [pod]
    assert one_after_the_other(install)


def test_a_pod_that_was_stopped_in_the_console_is_replaced_not_left_to_bill_its_disk(
    install: Install,
) -> None:
    pod = until(install, "ready")["instance_id"]
    install.console("POST", f"/v2/pods/{pod}/action", {"action": "stop"})
    assert "exited" in install.manage().expect().out
    second = until(install, "ready")["instance_id"]
    assert alive(install) == [second] != [pod]
    assert one_after_the_other(install)


def test_a_pod_whose_container_crashes_again_and_again_is_ended(install: Install) -> None:
    """Each look finds an uptime that has fallen; RunPod calls the pod RUNNING all the time, and bills it."""
    install.write(max_restarts=0, startup_timeout_seconds=3600)
    install.sim.set(never_ready=True, crash_loop=True, crash_seconds=40.0)
    install.manage().expect()
    uptimes = [39, 5] * 6
    said = ""
    for uptime in uptimes:
        born = install.sim.alive()[0]["created_at"] if alive(install) else None
        if born is None:
            break
        age = install.sim.state()["now"] - born
        install.sim.advance((uptime - age) % 40.0)
        said = install.manage().out
    assert alive(install) == []
    assert "crashes" in said
    until(install, "failed", most=2)
    assert creates(install) == 1


def test_a_few_crashes_of_a_pod_that_recovers_are_forgiven(install: Install) -> None:
    pod = until(install, "ready")["instance_id"]
    for _ in range(3):
        install.sim.advance(60)
        install.manage().expect()
        install.sim.kill(pod)
        until(install, "ready")
    assert (alive(install), creates(install)) == ([pod], 1)


# --- moved, renamed
def test_a_pod_that_moved_to_another_id_is_followed(install: Install) -> None:
    """The provider moves a pod to another host: the same name and settings under a new id, the old one gone."""
    before = until(install, "ready")
    old = install.sim.alive()[0]["config"]
    install.sim.advance(10)
    install.console("DELETE", f"/v2/pods/{before['instance_id']}")
    body = {
        "name": before["name"],
        "cloud": "SECURE",
        "gpu": {"id": "NVIDIA L4", "count": 1},
        **{key: old[key] for key in ("image", "env", "disk", "ports")},
        **{key: old[key] for key in ("entrypoint", "cmd") if old.get(key)},
    }
    moved = install.console("POST", "/v2/pods", body)["id"]
    after = until(install, "ready", most=3)
    assert after["instance_id"] == moved == alive(install)[0]
    assert after["deadline"] == before["deadline"], "its time goes on"
    assert creates(install) == 2, "ours and the move"
    edit(install, deadline=1.0)
    install.manage().expect()
    assert alive(install) == []


def test_a_renamed_pod_goes_on_serving(install: Install) -> None:
    """Its key was made from its first name, so that name must not be forgotten."""
    install.proxy = True
    pod = until(install, "ready")["instance_id"]
    install.console("PATCH", f"/v2/pods/{pod}", {"name": "my coder"})
    for _ in range(4):
        install.manage().expect()
    assert (install.state()["phase"], alive(install)) == ("ready", [pod])
    assert answered(install, QUESTION).headers["X-Cache"] == "MISS"


def test_a_renamed_pod_is_ended_when_its_time_is_over(install: Install) -> None:
    pod = until(install, "ready")["instance_id"]
    install.console("PATCH", f"/v2/pods/{pod}", {"name": "my coder"})
    install.manage().expect()
    edit(install, deadline=1.0)
    until(install, "stopped", most=3)
    assert alive(install) == []


# --- a pod of ours that nobody knows
def test_a_pod_that_no_record_knows_is_adopted_where_one_is_wanted(install: Install) -> None:
    pod = until(install, "ready")["instance_id"]
    (install.directory / "pod_state.json").unlink()
    assert "is gone" in install.manage().expect(78).out  # said once, and mended in the same pass
    install.manage().expect()
    assert until(install, "ready")["instance_id"] == pod
    assert (alive(install), creates(install)) == ([pod], 1)


def test_a_second_pod_of_ours_is_ended_by_the_pass_that_sees_it(install: Install) -> None:
    known = until(install, "ready")
    name = known["name"][:-12] + "0123456789ab"
    twin = {"name": name, "image": "x/y:1", "gpu": {"id": "NVIDIA L4", "count": 1}}
    second = install.console("POST", "/v2/pods", twin)["id"]
    assert len(alive(install)) == 2
    assert second in install.manage("--verbose").expect().out
    assert alive(install) == [known["instance_id"]]


# --- the configuration changed
def test_another_configuration_replaces_the_pod_and_never_bills_two(install: Install) -> None:
    first = until(install, "ready")["instance_id"]
    install.write(gpu_type_id=["NVIDIA A40"])
    install.sim.set(delete_lag_seconds=5.0)
    assert "another configuration" in install.manage().expect().out
    install.manage().expect()
    assert alive(install) == [], "the old one is still listed, so there is no new one"
    assert creates(install) == 1
    install.sim.advance(31)
    record = until(install, "ready")
    assert (record["gpu"], alive(install)) == ("NVIDIA A40", [record["instance_id"]])
    assert record["instance_id"] != first
    assert one_after_the_other(install)


@pytest.mark.parametrize(
    "change", [{"max_cache_size": 5}, {"expiring_soon_seconds": 10}, {"poll_interval_seconds": 0.2}]
)
def test_a_setting_that_no_pod_is_made_from_replaces_none(
    install: Install, change: dict[str, object]
) -> None:
    pod = until(install, "ready")["instance_id"]
    install.write(**change)
    install.manage().expect()
    assert (alive(install), calls(install, "DELETE")) == ([pod], [])


def test_a_user_who_wants_changes_to_wait_keeps_the_pod(install: Install) -> None:
    install.write(on_config_change="keep")
    pod = until(install, "ready")["instance_id"]
    install.write(gpu_type_id=["NVIDIA A40"])
    install.manage().expect()
    assert alive(install) == [pod]
    install.manage("down").expect()
    install.manage("up").expect()
    assert until(install, "ready")["gpu"] == "NVIDIA A40"


def test_a_change_and_back_within_a_start_makes_one_pod(install: Install) -> None:
    install.sim.set(container_seconds=1000.0)
    install.manage().expect()
    pod = alive(install)
    good = install.config["gpu_type_id"]
    install.write(gpu_type_id=["NVIDIA A40"])
    install.write(gpu_type_id=good)
    install.manage().expect()
    assert (alive(install), creates(install)) == (pod, 1)
