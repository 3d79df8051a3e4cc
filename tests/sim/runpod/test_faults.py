"""Faults happen to one call each, and do exactly what they say: made or not made is what matters."""

import pytest
import requests

from tests.sim.runpod.api import Api, body, problem


@pytest.mark.parametrize(
    ("fault", "status"), [("500", 500), ("402", 402), ("403", 403), ("429", 429), ("503", 503)]
)
def test_a_refused_create_makes_nothing(api: Api, fault: str, status: int) -> None:
    api.sim.fault("create", fault)
    answer = api.call("POST", "/v2/pods", json=body())
    assert answer.status_code == status
    assert api.sim.alive() == []
    assert api.call("POST", "/v2/pods", json=body()).status_code == 201


def test_no_money_in_runpods_words(api: Api) -> None:
    api.sim.fault("create", "402")
    detail = problem(api.call("POST", "/v2/pods", json=body()))["detail"]
    assert detail == "Your account balance is too low to rent a pod. Please add funds to your account."


def test_too_many_calls_say_when_to_come_back(api: Api) -> None:
    api.sim.fault("list", "429")
    answer = api.call("GET", "/v2/pods")
    assert problem(answer)["title"] == "Too Many Requests"
    assert int(answer.headers["retry-after"]) >= 1


def test_an_error_after_the_pod_was_made(api: Api) -> None:
    api.sim.fault("create", "created_then_500")
    assert api.call("POST", "/v2/pods", json=body(name="orphan")).status_code == 500
    assert [pod["name"] for pod in api.sim.alive()] == ["orphan"]
    assert len(api.ids()) == 1


@pytest.mark.parametrize("fault", ["created_then_dropped", "dropped"])
def test_a_connection_that_is_cut(api: Api, fault: str) -> None:
    api.sim.fault("create", fault)
    with pytest.raises(requests.ConnectionError):
        api.call("POST", "/v2/pods", json=body())
    assert len(api.sim.alive()) == (1 if fault.startswith("created") else 0)


def test_garbage_after_the_pod_was_made(api: Api) -> None:
    api.sim.fault("create", "created_then_garbage")
    answer = api.call("POST", "/v2/pods", json=body())
    assert answer.ok
    with pytest.raises(requests.JSONDecodeError):
        answer.json()
    assert len(api.sim.alive()) == 1


@pytest.mark.parametrize("fault", ["created_then_hang", "hang"])
def test_an_answer_that_never_comes(api: Api, fault: str) -> None:
    api.sim.fault("create", fault)
    with pytest.raises(requests.ReadTimeout):
        api.call("POST", "/v2/pods", json=body(), timeout=0.5)
    assert len(api.sim.alive()) == (1 if fault.startswith("created") else 0)


def test_a_listing_of_nothing_by_mistake(api: Api) -> None:
    pod_id = api.create()["id"]
    api.sim.fault("list", "empty")
    assert api.ids() == []
    assert api.ids() == [pod_id]


def test_get_and_delete_fail_without_doing_anything(api: Api) -> None:
    pod_id = api.create()["id"]
    api.sim.fault("get", "500")
    assert api.call("GET", f"/v2/pods/{pod_id}").status_code == 500
    assert api.pod(pod_id)["id"] == pod_id
    api.sim.fault("delete", "500", times=2)
    assert [api.call("DELETE", f"/v2/pods/{pod_id}").status_code for _ in range(3)] == [500, 500, 204]


def test_faults_wait_in_line_for_their_own_operation(api: Api) -> None:
    api.sim.fault("list", "500")
    api.sim.fault("create", "402")
    api.sim.fault("create", "403")
    assert [api.call("POST", "/v2/pods", json=body()).status_code for _ in range(3)] == [402, 403, 201]
    assert [api.call("GET", "/v2/pods").status_code for _ in range(2)] == [500, 200]


def test_every_call_is_on_record_with_what_was_answered(api: Api) -> None:
    api.sim.fault("create", "created_then_dropped")
    with pytest.raises(requests.ConnectionError):
        api.call("POST", "/v2/pods", json=body())
    pod_id = api.ids()[0]
    api.call("DELETE", f"/v2/pods/{pod_id}")
    calls = api.sim.requests()
    assert [(call["method"], call["path"], call["status"]) for call in calls] == [
        ("POST", "/v2/pods", 0),
        ("GET", "/v2/pods", 200),
        ("DELETE", f"/v2/pods/{pod_id}", 204),
    ]
    assert sorted(call["at"] for call in calls) == [call["at"] for call in calls]


def test_reset_forgets_everything(api: Api) -> None:
    api.sim.set(no_capacity=["NVIDIA L4"])
    api.create(gpu={"id": "NVIDIA A40", "count": 1})
    api.sim.fault("list", "500")
    requests.post(api.sim.api_url + "/__sim/reset", timeout=10).raise_for_status()
    assert (api.ids(), api.sim.state()["pods"], api.sim.bill()["total_usd"]) == ([], [], 0)
    assert [call["path"] for call in api.sim.requests()] == ["/v2/pods"]
    api.create()
