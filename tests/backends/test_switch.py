"""The dead-man's switch for real: the script runs in a pod of the simulator, and nobody else ends that pod."""

import os
import signal

import pytest
import requests

from tests.backends.switched import EARLY, KEY, LATE, MODEL, Account, Pod
from tests.support import procfs
from tests.support.wait import eventually

pytestmark = pytest.mark.skipif(not procfs.available(), reason="processes are looked at through /proc")
EVERY = 1.0


# --- the deadline
def test_a_pod_nobody_manages_ends_at_its_deadline(runpod: Account) -> None:
    pod = runpod.pod(lasts=4).served()
    assert -EARLY <= pod.ends(within=5) - pod.deadline <= EVERY + LATE
    assert pod.calls("DELETE") == [204]
    eventually(lambda: not pod.processes())


def test_a_used_pod_ends_at_its_deadline_too(runpod: Account) -> None:
    pod = runpod.pod(lasts=4, heartbeat=60).served()
    eventually(lambda: pod.ask() != 200, within=10 + LATE, every=0.1)
    assert -EARLY <= pod.ends(within=1) - pod.deadline <= EVERY + LATE


def test_a_container_that_crashes_for_ever_ends_at_the_deadline(runpod: Account) -> None:
    runpod.sim.set(crash_loop=True, crash_seconds=1.5)
    pod = runpod.pod(lasts=5, heartbeat=60)  # silence is not what ends it, however long a life takes
    assert -EARLY <= pod.ends(within=6) - pod.deadline <= EVERY + LATE


def test_a_container_restarted_after_its_deadline_starts_no_model(runpod: Account) -> None:
    runpod.sim.fault("delete", "500", times=8)
    runpod.sim.fault("action", "500", times=8)
    pod = runpod.pod(lasts=3).served()
    eventually(lambda: len(pod.calls("DELETE")) > 1, within=5 + LATE, every=0.1)
    first = pod.facts["server_pid"]
    runpod.sim.kill(pod.id)
    seen = set()

    def watched() -> bool:
        seen.add(pod.facts["server_pid"])
        return pod.gone

    eventually(watched, within=15 + LATE, every=0.05)
    assert seen <= {first, None}
    assert pod.calls("DELETE") == [500] * 8 + [204]


def test_without_a_readable_deadline_it_ends_at_once(runpod: Account) -> None:
    backend = runpod.backend()
    body = runpod.pod().facts["config"]
    wrong = {**body["env"], "LLMPOD_DEADLINE": "tomorrow"}
    made = backend.api.create("/v2/pods", {**_as_body(body), "env": wrong})
    eventually(
        lambda: not any(pod["id"] == made["id"] for pod in runpod.sim.alive()), within=2 + LATE, every=0.1
    )


def _as_body(config: dict[str, object]) -> dict[str, object]:
    kept = {name: config[name] for name in ("image", "entrypoint", "cmd", "disk", "ports")}
    return {"name": "by-hand", "gpu": {"id": "NVIDIA L4", "count": 1}, **kept}


# --- the heartbeat
def test_without_requests_it_ends_after_the_heartbeat(runpod: Account) -> None:
    pod = runpod.pod(heartbeat=3).served()
    last = pod.now()
    assert 1 <= pod.ends(within=5) - last <= 3 + EVERY + LATE


def test_requests_with_the_key_keep_it_alive(runpod: Account) -> None:
    pod = runpod.pod(heartbeat=2).served()
    until = pod.now() + 8
    eventually(lambda: pod.ask() == 200 and pod.now() > until, within=20, every=0.3)
    assert not pod.gone


NOBODYS = [
    ("GET", "/v1/models", None),
    ("GET", "/v1/models", "sk-guessed"),
    ("OPTIONS", "/v1/models", None),
    ("GET", "/health", None),
    ("POST", "/tokenize", None),
    ("GET", "/v1/nothing", KEY),
]


def test_requests_without_the_key_do_not(runpod: Account) -> None:
    pod = runpod.pod(heartbeat=3).served()
    last = pod.now()

    def knock() -> bool:
        for method, path, key in NOBODYS:
            body = {"model": MODEL, "prompt": "x"} if method == "POST" else None
            pod.ask(path, method=method, key=key, json=body, headers={"Origin": "http://x"})
        return pod.gone

    eventually(knock, within=4 + LATE, every=0.3)
    assert pod.facts["terminated_at"] - last <= 3 + EVERY + LATE


def test_one_long_answer_keeps_it_alive(runpod: Account) -> None:
    runpod.sim.set(tokens_per_second=8)
    pod = runpod.pod(heartbeat=2).served()
    asked = {"model": MODEL, "max_tokens": 60, "ignore_eos": True, "stream": True}
    body = {**asked, "messages": [{"role": "user", "content": "count"}]}
    url, headers = f"{pod.seen.base_url}/v1/chat/completions", {"Authorization": f"Bearer {KEY}"}
    with requests.post(url, json=body, headers=headers, stream=True, timeout=30) as answer:
        assert answer.content.endswith(b"data: [DONE]\n\n")
    assert not pod.gone
    last = pod.now()
    assert pod.ends(within=4) - last <= 2 + EVERY + LATE


@pytest.mark.parametrize(("heartbeat", "startup"), [(1, 4), (4, 1)])
def test_a_model_that_never_loads_has_the_startup_budget_or_the_heartbeat_if_that_is_longer(
    runpod: Account, heartbeat: int, startup: int
) -> None:
    runpod.sim.set(never_ready=True)
    pod = runpod.pod(heartbeat=heartbeat, startup_seconds=startup)
    born = pod.facts["created_at"]
    assert 3 <= pod.ends(within=5) - born <= 4 + EVERY + LATE


def _break(pod: Pod, path: str) -> None:
    """From now on the model server fails at that path."""
    url = f"http://127.0.0.1:{pod.facts['server_port']}/__sim/faults"
    requests.post(url, json={"fault": "500", "path": path, "times": 10_000}, timeout=5).raise_for_status()


def test_a_server_that_serves_but_cannot_be_counted_has_its_deadline_only(runpod: Account) -> None:
    pod = runpod.pod(lasts=10, heartbeat=3, startup_seconds=4).served()
    _break(pod, "/metrics")
    assert -EARLY <= pod.ends(within=10) - pod.deadline <= EVERY + LATE


def test_a_server_that_serves_nobody_is_silent(runpod: Account) -> None:
    pod = runpod.pod(heartbeat=3).served()
    eventually(lambda: "the heartbeat counts now" in pod.log())
    _break(pod, "/metrics")
    _break(pod, "/v1/models")
    assert pod.ends(within=5) < pod.deadline - 500


# --- the container as a whole
def test_the_model_server_is_the_containers_first_process_and_gets_its_signals(runpod: Account) -> None:
    pod = runpod.pod().served()
    first = pod.facts["server_pid"]
    process = procfs.read(first)
    assert process is not None
    assert f"serve {MODEL} --host 0.0.0.0 --max-model-len 4096" in process.command
    os.kill(first, signal.SIGTERM)
    eventually(lambda: pod.facts["server_pid"] not in (first, None), within=15)
    assert not pod.gone


def test_it_says_what_it_does_and_no_key(runpod: Account) -> None:
    pod = runpod.pod(heartbeat=60).served()
    said = eventually(lambda: [line for line in pod.log().splitlines() if "armed" in line])
    assert f"deadline {int(pod.deadline)}" in said[0]
    assert "heartbeat 60s, boot 600s, every 1s" in said[0]
    assert not any(key in pod.log() for key in (KEY, pod.own_key, runpod.sim.key))
