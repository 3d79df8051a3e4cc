"""Every refusal has RunPod's own status, sentence and headers."""

import json
import re
from typing import Any

import pytest
import requests

from llmpod.sim.launch import Simulator
from tests.sim.runpod.api import AGENT, Api, body, problem

NO_INSTANCES = (
    "There are no longer any instances available with the requested specifications. "
    "Please refresh and try again."
)


def refused(answer: requests.Response) -> tuple[int, str]:
    found = problem(answer)
    return answer.status_code, found["detail"]


def test_without_a_key(api: Api) -> None:
    answer = requests.get(api.sim.api_url + "/v2/pods", headers={"User-Agent": AGENT}, timeout=10)
    assert problem(answer) == {"title": "Unauthorized", "status": 401, "detail": "missing bearer token"}
    assert "ratelimit" not in answer.headers


def test_with_a_wrong_key(api: Api) -> None:
    answer = api.call("GET", "/v2/pods", headers={"Authorization": "Bearer rpa_wrong"})
    assert answer.status_code == 401
    assert "rpa_wrong" not in answer.text


@pytest.mark.parametrize("agent", ["Python-urllib/3.11", "python-requests/2.34.2"])
def test_the_network_in_front_refuses_pythons_default_agents(api: Api, agent: str) -> None:
    answer = api.call("GET", "/v2/pods", headers={"User-Agent": agent})
    assert (answer.status_code, answer.text.strip()) == (403, "error code: 1010")
    assert "json" not in answer.headers["content-type"]


def test_a_key_may_only_read(api: Api) -> None:
    api.sim.set(key_scope="read")
    assert refused(api.call("POST", "/v2/pods", json=body())) == (403, "access denied")
    assert api.ids() == []
    assert api.sim.alive() == []


@pytest.mark.parametrize(
    ("method", "path", "detail"),
    [
        ("GET", "/v2/pods/nosuchpod", "pod not found"),
        ("DELETE", "/v2/pods/nosuchpod", "pod not found"),
        ("GET", "/v2/pods/nosuchpod/logs", "pod not found"),
        ("GET", "/v2/networkvolumes", "The requested path was not found."),
        ("POST", "/v2/pods/x/start", "The requested path was not found."),
        ("GET", "/", "The requested path was not found."),
    ],
)
def test_what_is_not_there(api: Api, method: str, path: str, detail: str) -> None:
    assert problem(api.call(method, path)) == {"title": "Not Found", "status": 404, "detail": detail}


def test_a_method_that_is_not_allowed(api: Api) -> None:
    answer = api.call("PUT", "/v2/pods")
    assert refused(answer) == (405, "The requested method is not allowed for this path.")
    assert {word.strip() for word in answer.headers["allow"].split(",")} == {"GET", "POST"}


def test_the_first_api_version_is_gone(api: Api) -> None:
    assert api.call("GET", "/v1/pods").status_code == 410
    assert api.call("POST", "/v1/pods", json=body()).status_code == 410
    assert api.sim.alive() == []


def test_too_large_is_said_even_to_strangers(api: Api) -> None:
    limit = 102_400
    filler = limit - len(json.dumps(body(env={"A": ""})))
    for extra, status in ((0, 401), (1, 413)):
        data = json.dumps(body(env={"A": "x" * (filler + extra)}))
        assert len(data) == limit + extra
        answer = requests.post(
            api.sim.api_url + "/v2/pods", data=data, headers={"User-Agent": AGENT}, timeout=10
        )
        assert problem(answer)["status"] == status


@pytest.mark.parametrize("data", [b"", b"{", b'{"a":NaN}', b"\xff"])
def test_a_body_that_is_no_json(api: Api, data: bytes) -> None:
    answer = api.call("POST", "/v2/pods", data=data)
    assert problem(answer)["status"] in (400, 422)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"supportPublicIp": True}, "$: additional properties 'supportPublicIp' not allowed"),
        ({"image": None}, "$: missing property 'image'"),
        ({"name": None}, "$: missing property 'name'"),
    ],
)
def test_a_body_against_the_contract(api: Api, more: dict[str, Any], error: str) -> None:
    found = problem(api.call("POST", "/v2/pods", json=body(**more)))
    assert (found["title"], found["detail"]) == ("Unprocessable Entity", "Request validation failed.")
    assert error in found["errors"]


@pytest.mark.parametrize("field", ["gpu", "mounts", "env", "cmd", "ports", "disk", "dataCenterIds"])
def test_an_error_tells_which_field_is_wrong(api: Api, field: str) -> None:
    errors = problem(api.call("POST", "/v2/pods", json=body(**{field: True})))["errors"]
    assert any(error.startswith(f"$.{field}:") for error in errors)


@pytest.mark.parametrize(
    "more",
    [
        {"gpu": None},
        {"cpu": {"id": "cpu3c", "vcpuCount": 2}},
        {
            "mounts": {
                "persistent": {"size": 10, "path": "/a"},
                "network": [{"volumeId": "v", "path": "/b"}],
            }
        },
        {
            "gpu": {
                "id": "NVIDIA L4",
                "count": 1,
                "minCudaVersion": "12.8",
                "allowedCudaVersions": ["12.8"],
            }
        },
    ],
    ids=["no hardware", "gpu and cpu", "two kinds of mount", "two CUDA rules"],
)
def test_rules_of_the_handler_are_a_plain_400(api: Api, more: dict[str, Any]) -> None:
    found = problem(api.call("POST", "/v2/pods", json=body(**more)))
    assert (found["title"], found["status"]) == ("Bad Request", 400)
    assert found["detail"] != NO_INSTANCES
    assert api.sim.alive() == []


def test_an_unknown_gpu(api: Api) -> None:
    answer = api.call("POST", "/v2/pods", json=body(gpu={"id": "__invalid__", "count": 1}))
    assert refused(answer) == (422, "Unknown GPU type: __invalid__")


def test_templates(api: Api) -> None:
    assert api.call("POST", "/v2/pods", json=body(templateId="nosuch")).status_code == 404
    listed = api.call("GET", "/v2/catalog/templates").json()["templates"]
    kinds = {template["serverless"]: template["id"] for template in listed}
    assert api.call("POST", "/v2/pods", json=body(templateId=kinds[True])).status_code == 422
    found = api.create(templateId=kinds[False], image=None, cmd=None, env={"MINE": "1"})
    assert found["image"]
    assert found["env"]["MINE"] == "1"
    assert found["template"] is None


def test_an_old_server_knows_no_cmd_but_its_stored_form(api: Api) -> None:
    api.sim.set(old_payload=True)
    found = problem(api.call("POST", "/v2/pods", json=body()))
    assert any("'cmd'" in error for error in found["errors"])
    made = api.create(cmd=None, args=json.dumps({"cmd": ["org/old", "--port", "8000"]}))
    assert "cmd" not in made
    assert "entrypoint" not in made
    api.ready(made["id"])


def test_no_capacity_of_one_gpu(api: Api) -> None:
    api.sim.set(no_capacity=["NVIDIA L4"])
    answer = api.call("POST", "/v2/pods", json=body())
    assert problem(answer) == {"title": "Bad Request", "status": 400, "detail": NO_INSTANCES}
    assert api.create(gpu={"id": "NVIDIA A40", "count": 1})["gpu"]["id"] == "NVIDIA A40"


def test_capacity_is_counted_by_gpu_cloud_and_data_center(api: Api) -> None:
    api.sim.set(capacity={"NVIDIA L4/SECURE/EU-RO-1": 1, "NVIDIA L4/*": 0})
    assert refused(api.call("POST", "/v2/pods", json=body(dataCenterIds=["US-TX-3"])))[1] == NO_INSTANCES
    assert refused(api.call("POST", "/v2/pods", json=body(cloud="COMMUNITY")))[1] == NO_INSTANCES
    first = api.create()
    assert first["dataCenterId"] == "EU-RO-1"
    assert refused(api.call("POST", "/v2/pods", json=body()))[1] == NO_INSTANCES
    assert api.call("DELETE", f"/v2/pods/{first['id']}").status_code == 204
    api.create()


def test_a_gpu_without_count_finds_no_instance_unless_the_quirk_is_off(api: Api) -> None:
    asked = body(gpu={"id": "NVIDIA L4"})
    assert refused(api.call("POST", "/v2/pods", json=asked)) == (400, NO_INSTANCES)
    api.sim.set(gpu_count_quirk=False)
    assert api.call("POST", "/v2/pods", json=asked).json()["gpu"]["count"] == 1


WINDOW = re.compile(r'"(minute|hour|day)";r=(\d+);t=(\d+)')
POLICY = re.compile(r'"(minute|hour|day)";q=(\d+);w=(\d+)')


def test_every_answer_has_an_id_and_every_authenticated_one_three_windows(api: Api) -> None:
    answers = [api.call("GET", "/v2/pods"), api.call("GET", "/v2/pods"), api.call("GET", "/v2/pods/nosuch")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    remaining = []
    for answer in answers:
        windows = {name: int(left) for name, left, _ in WINDOW.findall(answer.headers["ratelimit"])}
        quotas = {name: int(quota) for name, quota, _ in POLICY.findall(answer.headers["ratelimit-policy"])}
        assert windows.keys() == quotas.keys() == {"minute", "hour", "day"}
        remaining.append(windows["minute"])
    assert remaining == [remaining[0], remaining[0] - 1, remaining[0] - 2]


def test_the_call_over_the_limit_is_refused_until_the_window_is_over(api: Api) -> None:
    api.sim.advance(61)
    api.sim.set(rate_limits=[3, 7200, 86400], enforce_rate_limits=True)
    assert [api.call("GET", "/v2/pods").status_code for _ in range(3)] == [200] * 3
    late = api.call("POST", "/v2/pods", json=body())
    assert refused(late) == (429, "rate limit exceeded for the minute window")
    assert 1 <= int(late.headers["retry-after"]) <= 60
    assert ("minute", "0") in [found[:2] for found in WINDOW.findall(late.headers["ratelimit"])]
    assert api.sim.alive() == []
    api.sim.advance(61)
    assert api.call("GET", "/v2/pods").status_code == 200


def test_a_behavior_that_is_none_is_refused_with_the_nearest(fast: Simulator) -> None:
    answer = requests.post(fast.api_url + "/__sim/behavior", json={"container_second": 1}, timeout=10)
    assert answer.status_code == 422
    assert "container_seconds" in answer.text
    for wrong in (
        {"container_seconds": "1"},
        {"container_seconds": -1},
        {"never_ready": 1},
        {"state_mode": "x"},
    ):
        assert requests.post(fast.api_url + "/__sim/behavior", json=wrong, timeout=10).status_code == 422


def test_a_fault_that_is_none_is_refused(fast: Simulator) -> None:
    for op, fault in (("create", "created_then_50"), ("creat", "500")):
        answer = requests.post(fast.api_url + "/__sim/faults", json={"op": op, "fault": fault}, timeout=10)
        assert answer.status_code == 422
