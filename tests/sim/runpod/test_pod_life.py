"""What is seen of a pod from create to the end, and what it costs."""

import pytest
import requests

from tests.sim.runpod.api import GPU, Api, body, problem, until
from tests.support.wait import eventually


def test_running_is_said_long_before_anything_runs(api: Api) -> None:
    api.sim.set(container_seconds=60, load_seconds=100)
    made = api.create()
    pod_id = made["id"]
    assert (made["status"], made["runtime"], made["cost"]) == ("RUNNING", None, 0.49)
    assert made["actions"] == ["stop", "restart", "terminate"]
    api.sim.advance(61)
    ports = eventually(lambda: api.pod(pod_id)["runtime"]["ports"])
    assert [(port["type"], port["ip"]) for port in ports] == [("http", "100.65.14.155")], "declared by nobody"
    assert 1 <= api.pod(pod_id)["runtime"]["uptime"] < 10
    assert api.through(pod_id, "/health").status_code == 502
    api.sim.advance(100)
    api.ready(pod_id)


def test_the_documented_states(api: Api) -> None:
    api.sim.set(state_mode="doc", container_seconds=100)
    pod_id = api.create()["id"]
    seen = []
    for _ in range(3):
        seen.append(api.pod(pod_id)["status"])
        api.sim.advance(50)
    assert seen == ["PROVISIONING", "STARTING", "RUNNING"]


def test_delete_is_204_and_then_404(api: Api) -> None:
    pod_id = api.create()["id"]
    api.ready(pod_id)
    gone = api.call("DELETE", f"/v2/pods/{pod_id}")
    assert (gone.status_code, gone.content) == (204, b"")
    for method in ("GET", "DELETE"):
        assert problem(api.call(method, f"/v2/pods/{pod_id}"))["detail"] == "pod not found"
    assert api.ids() == []
    assert api.through(pod_id, "/health").status_code == 404


def test_a_deleted_pod_is_listed_for_a_while(api: Api) -> None:
    api.sim.set(delete_lag_seconds=30)
    pod_id = api.create()["id"]
    assert api.call("DELETE", f"/v2/pods/{pod_id}").status_code == 204
    assert api.ids() == [pod_id]
    assert api.sim.alive() == []
    api.sim.advance(31)
    assert api.ids() == []
    assert api.call("GET", f"/v2/pods/{pod_id}").status_code == 404


def test_a_new_pod_is_not_listed_for_a_while(api: Api) -> None:
    api.sim.set(listing_lag_seconds=30)
    pod_id = api.create()["id"]
    assert api.ids() == []
    assert api.call("GET", f"/v2/pods/{pod_id}").status_code == 404
    assert [pod["id"] for pod in api.sim.alive()] == [pod_id]
    api.sim.advance(31)
    assert api.ids() == [pod_id]
    assert api.pod(pod_id)["id"] == pod_id


def test_a_ghost_has_an_id_and_is_nowhere(api: Api) -> None:
    api.sim.fault("create", "phantom")
    pod_id = api.create()["id"]
    assert api.ids() == []
    assert api.call("GET", f"/v2/pods/{pod_id}").status_code == 404
    assert api.sim.alive() == []
    api.sim.advance(3600)
    assert api.sim.bill()["total_usd"] == 0


def test_the_bill_is_by_the_second_and_ends_with_the_pod(api: Api) -> None:
    one = api.create()["id"]
    two = api.create(gpu={"id": "NVIDIA A40", "count": 2})["id"]
    api.sim.advance(1800)
    assert api.call("DELETE", f"/v2/pods/{one}").status_code == 204
    api.sim.advance(1800)
    bill = api.sim.bill()
    assert bill["pods"][one] == pytest.approx(0.49 / 2, rel=0.01)
    assert bill["pods"][two] == pytest.approx(0.44 * 2, rel=0.01)
    assert bill["total_usd"] == pytest.approx(sum(bill["pods"].values()))
    state = {pod["id"]: pod for pod in api.sim.state()["pods"]}
    assert state[one]["status"] == "TERMINATED"
    assert state[one]["terminated_at"] - state[one]["created_at"] == pytest.approx(1800, abs=5)
    assert (state[two]["gpu"], state[two]["usd_per_hour"]) == ("NVIDIA A40", 0.88)
    records = api.call("GET", "/v2/billing/pods", params={"podId": one, "lastN": "24"}).json()["records"]
    assert {record["podId"] for record in records} == {one}
    assert sum(record["totalAmount"] for record in records) == pytest.approx(bill["pods"][one], rel=0.01)


def test_stop_keeps_the_shown_cost_and_ends_the_bill(api: Api) -> None:
    pod_id = api.create()["id"]
    api.ready(pod_id)
    stopped = act(api, pod_id, "stop").json()
    assert (stopped["status"], stopped["actions"], stopped["runtime"]) == (
        "EXITED",
        ["start", "terminate"],
        None,
    )
    assert stopped["cost"] == 0.49
    bill = api.sim.bill()["total_usd"]
    api.sim.advance(3600)
    assert api.sim.bill()["total_usd"] == bill
    until(lambda: api.through(pod_id, "/health").status_code == 200, wanted=False)
    assert act(api, pod_id, "start").json()["status"] == "RUNNING"
    api.ready(pod_id)
    api.sim.advance(3600)
    assert api.sim.bill()["total_usd"] == pytest.approx(bill + 0.49, rel=0.01)


def act(api: Api, pod_id: str, action: str) -> requests.Response:
    return api.call("POST", f"/v2/pods/{pod_id}/action", json={"action": action})


def test_an_action_must_fit_the_state(api: Api) -> None:
    pod_id = api.create()["id"]
    assert act(api, pod_id, "start").status_code == 409
    assert act(api, pod_id, "stop").status_code == 200
    assert act(api, pod_id, "stop").status_code == 409
    assert act(api, pod_id, "restart").status_code == 409
    assert act(api, pod_id, "terminate").status_code == 204
    assert act(api, pod_id, "start").status_code == 404
    wrong = problem(act(api, api.create()["id"], "reset"))
    assert wrong["errors"] == ["$.action: value must be one of 'start', 'stop', 'restart', 'terminate'"]


def test_a_stopped_pod_may_not_come_back(api: Api) -> None:
    pod_id = api.create()["id"]
    act(api, pod_id, "stop")
    api.sim.set(resume_fails=True)
    assert problem(act(api, pod_id, "start"))["detail"] == "Failed to resume pod."


def test_a_stopped_pod_may_come_back_without_gpus(api: Api) -> None:
    pod_id = api.create()["id"]
    act(api, pod_id, "stop")
    api.sim.set(zero_gpus=True)
    assert act(api, pod_id, "start").status_code == 200
    until(lambda: api.pod(pod_id)["gpu"]["count"], wanted=0)
    assert api.through(pod_id, "/health").status_code == 502


def test_restart_starts_the_container_again(api: Api) -> None:
    pod_id = api.create()["id"]
    api.sim.advance(500)
    assert api.pod(pod_id)["runtime"]["uptime"] >= 500
    assert act(api, pod_id, "restart").status_code == 200
    eventually(lambda: (api.pod(pod_id)["runtime"] or {}).get("uptime", 500) < 100)
    api.ready(pod_id)


def test_a_pod_can_be_broken(api: Api) -> None:
    api.sim.set(error_state=True)
    pod_id = api.create()["id"]
    until(lambda: api.pod(pod_id)["status"], wanted="ERROR")
    assert api.pod(pod_id)["actions"] == ["start", "terminate"]
    assert api.through(pod_id, "/health").status_code in (404, 502)


def test_a_pod_can_exit_by_itself(api: Api) -> None:
    api.sim.set(self_exits=True, fate_seconds=600)
    pod_id = api.create()["id"]
    api.ready(pod_id)
    api.sim.advance(601)
    assert api.pod(pod_id)["status"] == "EXITED"
    api.sim.advance(3600)
    assert api.sim.bill()["total_usd"] == pytest.approx(0.49 / 6, rel=0.02)
    assert api.through(pod_id, "/health").status_code != 200


def test_a_crash_loop_runs_and_never_serves(api: Api) -> None:
    api.sim.set(crash_loop=True)
    pod_id = api.create()["id"]
    for _ in range(3):
        api.sim.advance(100)
        found = api.pod(pod_id)
        assert found["status"] == "RUNNING"
        assert found["runtime"]["uptime"] < 30
    assert api.through(pod_id, "/health").status_code == 502


def test_a_model_server_may_never_open_its_port(api: Api) -> None:
    api.sim.set(never_ready=True)
    pod_id = api.create()["id"]
    api.sim.advance(10_000)
    assert api.pod(pod_id)["runtime"]["uptime"] >= 10_000
    assert api.through(pod_id, "/health").status_code == 502


def test_update_changes_and_resets(api: Api) -> None:
    pod_id = api.create(env={"A": "1", "VLLM_API_KEY": "old"})["id"]
    api.sim.advance(500)
    renamed = api.call("PATCH", f"/v2/pods/{pod_id}", json={"name": "other", "locked": True}).json()
    assert (renamed["name"], renamed["locked"]) == ("other", True)
    assert api.pod(pod_id)["runtime"]["uptime"] >= 500
    changed = api.call("PATCH", f"/v2/pods/{pod_id}", json={"env": {"VLLM_API_KEY": "new"}}).json()
    assert changed["env"] == {"VLLM_API_KEY": "new"}
    api.ready(pod_id)
    headers = {"Authorization": "Bearer new"}
    until(lambda: api.through(pod_id, "/v1/models", headers=headers).status_code, wanted=200)
    assert api.pod(pod_id)["runtime"]["uptime"] < 100


def test_a_price_is_for_one_gpu_and_a_cloud(api: Api) -> None:
    gpus = {gpu["id"]: gpu for gpu in api.call("GET", "/v2/catalog/gpus").json()["gpus"]}
    for cloud in ("SECURE", "COMMUNITY"):
        made = api.create(cloud=cloud, gpu={"id": GPU, "count": 3})
        assert made["cost"] == pytest.approx(3 * gpus[GPU]["price"][cloud.lower()])
        assert (made["cloud"], made["gpu"]["count"]) == (cloud, 3)


def test_a_pod_of_cpus(api: Api) -> None:
    made = api.create(gpu=None, cpu={"id": "cpu3c", "vcpuCount": 4}, image="x/y:1", cmd=None)
    assert "gpu" not in made
    assert made["cpu"]["vcpuCount"] == 4


def test_a_create_is_never_remembered_by_its_name(api: Api) -> None:
    same = {api.call("POST", "/v2/pods", json=body()).json()["id"] for _ in range(2)}
    assert len(same) == 2
