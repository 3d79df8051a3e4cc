"""Starts that cannot be: what requests and operators are told of them, and what is left alone meanwhile."""

import json
import sys

import requests

from tests.manager.test_on_request import ask, begin, begun, request
from tests.support.desk import Desk
from tests.support.install import Install
from tests.support.net import listens
from tests.support.wait import eventually


def test_a_program_that_is_gone_is_named_without_all_of_its_path(desk: Desk) -> None:
    begin(desk, ["no-such-server"], max_restarts=0)
    told = ask(desk, "hi").json["error"]["message"]
    assert "there is no program 'no-such-server' in PATH" in told
    assert ".." not in told


def test_a_start_that_fails_is_told_in_its_stream_and_to_the_next_ones(desk: Desk) -> None:
    late = [sys.executable, "-c", "import sys, time; time.sleep(0.5); print('out of memory'); sys.exit(3)"]
    begin(desk, late, max_restarts=0, keepalive_seconds=0.1)
    reply = ask(desk, "hi", stream=True)
    assert reply.status == 200
    assert reply.cut, "what has begun must not end cleanly"
    event = reply.body.rstrip().rpartition(b"data: ")[2]
    told = json.loads(event)["error"]["message"]
    assert "the process has exited: it ended with exit code 3; its last lines: out of memory" in told
    assert "pod " not in told
    assert str(desk.directory) not in told, "others read it too"
    log, more = (
        desk.directory / ".llmpod" / "pod_state" / "proxy.log",
        f"{desk.directory / 'pod_config.json'} logs",
    )
    eventually(lambda: f"manage_pod.py --config {more}" in log.read_text(), within=20)
    again = ask(desk, "hi")
    assert (again.status, again.json["error"]["code"]) == (503, "model_not_ready")
    assert "out of memory" in again.json["error"]["message"]
    assert int(again.headers["retry-after"]) > 0


def test_an_operator_does_not_stop_what_only_a_person_may_start(
    install: Install, env: dict[str, str]
) -> None:
    begun(install, env)
    install.manage("--no-proxy", "up").expect()
    install.passes_until("ready")
    eventually(lambda: request(install, "hi").status_code == 200, within=30)
    (pod,) = install.sim.alive()
    url = f"http://127.0.0.1:{install.port}/admin/restart"
    refused = requests.post(url, json={"model": "default"}, timeout=30)
    assert refused.status_code == 402, refused.text
    assert "it was not stopped" in refused.json()["error"]["message"]
    install.manage("--no-proxy").expect()
    assert [alive["id"] for alive in install.sim.alive()] == [pod["id"]]
    assert request(install, "more").status_code == 200


def test_a_key_that_only_the_manager_had_is_missed_without_our_paths(install: Install) -> None:
    """The passes of the proxy know the key's file alone; what to do is in the log, for the operator."""
    install.proxy = True
    install.write(start="on_request", budget={"per_day_usd": 5}, wake_on_request=True)
    install.manage().expect()
    eventually(lambda: listens(install.port), within=20)
    refused = request(install, "hi")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_not_ready")
    assert "There is no RunPod API key." in refused.json()["error"]["message"]
    assert ".config" not in refused.text
    log = install.directory / ".llmpod" / "pod_state" / "proxy.log"
    eventually(lambda: "chmod 600" in log.read_text(), within=20)
