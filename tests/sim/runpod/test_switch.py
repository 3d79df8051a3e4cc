"""Containers that start with a script, as the dead-man's switch does: the simulator runs them for real."""

import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import requests

from llmpod.sim.launch import Simulator
from tests.sim.runpod.api import MODEL, Api
from tests.support import procfs
from tests.support.install import FAST
from tests.support.wait import eventually

pytestmark = pytest.mark.skipif(not procfs.available(), reason="processes are looked at through /proc")
SCRIPT = 'echo "I am $RUNPOD_POD_ID" >&2; sleep 600 & exec vllm serve "$@"'


def words(script: str = SCRIPT) -> dict[str, Any]:
    return {"entrypoint": ["/bin/sh", "-c"], "cmd": [script, "name", MODEL, "--port", "8000"]}


def below(sim: Simulator) -> list[str]:
    """The commands of everything that the simulator started."""
    return [process.command for process in procfs.descendants(sim.pid) if not process.is_zombie]


def lives(process: procfs.Process) -> bool:
    """Whether it still runs, whoever its parent is by now."""
    found = procfs.read(process.pid)
    return found is not None and found.started == process.started and not found.is_zombie


@pytest.fixture(
    params=[{"pods": "process"}, {"pods": "inline", "run_switch": True}], ids=["process", "inline"]
)
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    options: Mapping[str, Any] = request.param
    behavior = {**FAST, **{name: value for name, value in options.items() if name != "pods"}}
    with Simulator.start(pods=options["pods"], behavior=behavior) as sim:
        made = Api(sim)
        yield made
        made.close()


def test_the_script_runs_and_becomes_the_model_server(api: Api) -> None:
    pod_id = api.create(**words())["id"]
    api.ready(pod_id)
    listed = api.through(pod_id, "/v1/models", headers={"Authorization": "Bearer pod-key"}).json()["data"]
    assert [model["id"] for model in listed] == [MODEL]
    assert api.through(pod_id, "/v1/models").status_code == 401
    assert "sleep 600" in below(api.sim)
    assert any("llmpod.sim.vllm.in_pod serve" in command for command in below(api.sim))


def test_what_it_prints_is_in_the_containers_log(api: Api) -> None:
    pod_id = api.create(**words())["id"]
    api.ready(pod_id)
    answer = api.call("GET", f"/v2/pods/{pod_id}/logs", params={"source": "container"}, stream=True)
    with answer:
        lines = (line.decode() for line in answer.iter_lines(chunk_size=1))
        assert next(line for line in lines if f"I am {pod_id}" in line)


def test_it_ends_as_a_whole_with_the_pod(api: Api) -> None:
    pod_id = api.create(**words())["id"]
    api.ready(pod_id)
    assert api.call("DELETE", f"/v2/pods/{pod_id}").status_code == 204
    eventually(lambda: "sleep 600" not in below(api.sim) and not any("in_pod" in c for c in below(api.sim)))


def test_it_ends_as_a_whole_with_its_first_process_and_starts_again(api: Api) -> None:
    pod_id = api.create(**words("sleep 601 & sleep 602"))["id"]
    eventually(lambda: "sleep 602" in below(api.sim), within=10)
    shell = next(p for p in procfs.descendants(api.sim.pid) if p.command.startswith("/bin/sh -c sleep 601"))
    started = [p for p in procfs.descendants(shell.pid) if "sleep" in p.command]
    os.kill(shell.pid, signal.SIGKILL)
    eventually(lambda: not any(map(lives, started)))
    eventually(lambda: "sleep 602" in below(api.sim), within=10)
    assert api.pod(pod_id)["status"] == "RUNNING"


def test_the_model_loads_by_the_simulators_clock_while_the_script_runs_already(api: Api) -> None:
    api.sim.set(load_seconds=3600.0)
    pod_id = api.create(**words())["id"]
    eventually(lambda: "sleep 600" in below(api.sim), within=10)
    assert api.through(pod_id, "/health").status_code == 502
    api.sim.advance(3600)
    api.ready(pod_id)


def test_it_does_not_outlive_a_simulator_that_was_killed() -> None:
    with Simulator.start(behavior=FAST) as sim:
        api = Api(sim)
        api.ready(api.create(**words())["id"])
        left = procfs.descendants(sim.pid)
        assert any(process.command == "sleep 600" for process in left)
        os.kill(sim.pid, signal.SIGKILL)
        eventually(lambda: not any(map(lives, left)))
        api.close()


def test_inline_pods_only_read_what_the_script_starts_in_the_end() -> None:
    with Simulator.start(pods="inline", behavior=FAST) as sim:
        api = Api(sim)
        api.ready(api.create(**words())["id"])
        assert below(sim) == []
        api.close()


def test_only_answers_behind_the_key_check_are_counted() -> None:
    with Simulator.start(pods="inline", behavior=FAST) as sim:
        api = Api(sim)
        pod_id = api.create()["id"]
        api.ready(pod_id)
        key = {"Authorization": "Bearer pod-key"}
        asked = {"Origin": "http://x", "Access-Control-Request-Method": "GET"}
        api.through(pod_id, "/v1/models")
        api.through(pod_id, "/v1/models", method="OPTIONS", headers=asked)
        assert counted(api, pod_id) == {}
        api.through(pod_id, "/v1/models", headers=key)
        api.through(pod_id, "/v1/models", headers=key)
        api.through(pod_id, "/v1/none", headers=key)
        api.through(pod_id, "/v1/chat/completions", method="POST", headers=key, json={})
        assert counted(api, pod_id) == {
            'handler="/v1/models",method="GET",status="2xx"': 2.0,
            'handler="none",method="GET",status="4xx"': 1.0,
            'handler="/v1/chat/completions",method="POST",status="4xx"': 1.0,
        }
        api.close()


def counted(api: Api, pod_id: str) -> dict[str, float]:
    """`http_requests_total` by its labels."""
    page: requests.Response = api.through(pod_id, "/metrics")
    lines = [line for line in page.text.splitlines() if line.startswith("http_requests_total{")]
    pairs = [line.removeprefix("http_requests_total{").split("} ") for line in lines]
    return {labels: float(count) for labels, count in pairs}
