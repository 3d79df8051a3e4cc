"""How the switch reaches RunPod: failing APIs, whatever tools the image has, wrong clocks; and what it never shows."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import requests

from llmpod.backends import runpod_switch
from llmpod.backends.runpod_switch import Switch
from llmpod.model import Spec
from tests.backends.switched import EARLY, KEY, LATE, Account, Pod, environ, tool, tools
from tests.support import procfs
from tests.support.wait import eventually

pytestmark = pytest.mark.skipif(not procfs.available(), reason="processes are looked at through /proc")
EVERY = 1.0


# --- an API that does not do as it is told
@pytest.mark.parametrize("fault", ["500", "429", "dropped", "1010", "html", "401"])
def test_a_delete_that_fails_is_repeated(runpod: Account, fault: str) -> None:
    runpod.sim.fault("delete", fault, times=2)
    pod = runpod.pod(lasts=2)
    pod.ends(within=6)
    assert len(pod.calls("DELETE")) == 3
    assert pod.calls("POST") == []


def test_a_delete_that_was_lost_on_its_way_back_is_no_harm(runpod: Account) -> None:
    runpod.sim.fault("delete", "deleted_then_dropped")
    runpod.pod(lasts=2).ends(within=4)


def test_a_pod_that_may_not_delete_itself_is_stopped(runpod: Account) -> None:
    runpod.sim.fault("delete", "403", times=1000)
    pod = runpod.pod(lasts=2)
    eventually(lambda: pod.facts["status"] == "EXITED", within=8 + LATE, every=0.1)
    eventually(lambda: pod.calls("POST") == [200])
    assert pod.calls("DELETE") == [403] * 3


def test_it_never_gives_up(runpod: Account) -> None:
    for operation in ("delete", "action"):
        runpod.sim.fault(operation, "500", times=8)
    pod = runpod.pod(lasts=1)
    pod.ends(within=12 + LATE)
    assert pod.calls("DELETE") == [500] * 8 + [204]


def test_a_sign_of_life_ends_the_attempts(runpod: Account) -> None:
    runpod.sim.fault("delete", "500", times=2)
    pod = runpod.pod(heartbeat=3).served()
    eventually(lambda: pod.calls("DELETE"), within=6 + LATE, every=0.1)
    until = pod.now() + 5
    eventually(lambda: pod.ask() == 200 and pod.now() > until, within=15, every=0.2)
    assert not pod.gone
    assert len(pod.calls("DELETE")) <= 2


# --- whatever the image has
@pytest.mark.parametrize("names", [("curl",), ("python3",), ("curl", "python3")], ids="+".join)
def test_either_tool_will_do(runpod: Account, tmp_path: Path, names: tuple[str, ...]) -> None:
    runpod.sim.set(blocked_agents=["python", "curl"])
    pod = runpod.pod(lasts=600, heartbeat=3, env={"PATH": tools(tmp_path / "bin", *names)}).served()
    until = pod.now() + 5
    eventually(lambda: pod.ask() == 200 and pod.now() > until, within=15, every=0.2)
    last = pod.now()
    assert 1 <= pod.ends(within=5) - last <= 3 + EVERY + LATE


def test_a_tool_that_fails_is_followed_by_the_other(runpod: Account, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin", "python3")
    tool(tmp_path / "bin", "curl", 'echo "curl: (60) no certificates" >&2; exit 60')
    pod = runpod.pod(lasts=3, env={"PATH": path})
    assert -EARLY <= pod.ends(within=4) - pod.deadline <= EVERY + LATE


def test_a_stop_by_python_has_its_body(runpod: Account, tmp_path: Path) -> None:
    runpod.sim.fault("delete", "403", times=1000)
    pod = runpod.pod(lasts=1, env={"PATH": tools(tmp_path / "bin", "python3")})
    eventually(lambda: pod.facts["status"] == "EXITED", within=8 + LATE, every=0.1)


@pytest.mark.parametrize("days", [-1, 1])
@pytest.mark.parametrize("names", [("curl",), ("python3",)], ids="+".join)
def test_a_wrong_clock_ends_no_pod_early_and_none_late(
    runpod: Account, tmp_path: Path, days: int, names: tuple[str, ...]
) -> None:
    path, real = tools(tmp_path / "bin", *names), shutil.which("date")
    tool(tmp_path / "bin", "date", f'[ "$*" = +%s ] && exec {real} -d "{days} day" +%s; exec {real} "$@"')
    pod = runpod.pod(lasts=4, env={"PATH": path})
    assert -EARLY <= pod.ends(within=5) - pod.deadline <= EVERY + LATE


def test_servers_of_before_september_know_the_command_in_its_stored_form(runpod: Account) -> None:
    runpod.sim.set(old_payload=True)
    pod = runpod.pod(lasts=3).served()
    assert [call["status"] for call in runpod.sim.requests() if call["method"] == "POST"] == [422, 201]
    assert -EARLY <= pod.ends(within=4) - pod.deadline <= EVERY + LATE


def test_a_template_has_its_own_command_and_no_switch(runpod: Account) -> None:
    config = runpod.pod(template_id="vllm0tmpl1").facts["config"]
    assert config["entrypoint"] == []
    assert not Switch(0, "").env.keys() & config["env"].keys()


# --- what it shows
@pytest.mark.parametrize("name", ["curl", "python3"])
def test_no_key_is_in_an_argument_list(runpod: Account, tmp_path: Path, name: str) -> None:
    path = tools(tmp_path / "bin", name)
    pod = runpod.pod(lasts=4, heartbeat=60, env={"PATH": path}).served()
    runpod.sim.set(api_latency_seconds=2.0)  # so that the call is seen while it lasts
    secrets, seen = (KEY, pod.own_key, runpod.sim.key), set[str]()

    def look() -> bool:
        seen.update(process.command for process in procfs.descendants(runpod.sim.pid))
        return pod.gone

    eventually(look, within=6 + LATE, every=0.01)
    assert [command for command in seen if f"{name} -" in command and pod.id in command], (
        "it was not looked at"
    )
    assert not [command for command in seen if any(secret in command for secret in secrets)]


def test_the_accounts_key_is_not_in_the_pod(runpod: Account) -> None:
    pod = runpod.pod(heartbeat=60).served()
    assert runpod.sim.key not in json.dumps(pod.facts["config"])
    found = pod.processes()
    assert len(found) >= 2
    assert not [process for process in found if runpod.sim.key.encode() in environ(process.pid)]


def test_the_body_is_small_and_holds_no_key_but_the_models(runpod: Account) -> None:
    config = runpod.pod(heartbeat=60).facts["config"]
    assert len(json.dumps(config)) < 20_000
    text = json.dumps({**config, "env": {k: v for k, v in config["env"].items() if k != "VLLM_API_KEY"}})
    assert KEY not in text


def _calls(own: Pod, other: Pod) -> list[tuple[str, str, object]]:
    mine, theirs = f"/v2/pods/{own.id}", f"/v2/pods/{other.id}"
    body = {**_container(other), "name": "more", "gpu": {"id": "NVIDIA L4", "count": 1}}
    return [
        ("GET", "/v2/pods", None),
        ("POST", "/v2/pods", body),
        ("GET", mine, None),
        ("PATCH", mine, {"name": "renamed"}),
        ("POST", f"{mine}/action", {"action": "restart"}),
        ("GET", f"{mine}/logs", None),
        ("GET", theirs, None),
        ("DELETE", theirs, None),
        ("POST", f"{theirs}/action", {"action": "stop"}),
        ("POST", f"{theirs}/action", {"action": "terminate"}),
        ("GET", "/v2/catalog/gpus", None),
        ("GET", "/v2/billing/pods", None),
        ("POST", "/graphql", {"query": "query { myself { clientBalance } }"}),
    ]


def _container(pod: Pod) -> dict[str, object]:
    return {name: pod.facts["config"][name] for name in ("image", "disk", "ports", "env")}


def test_the_pods_key_can_end_this_pod_and_nothing_else(runpod: Account) -> None:
    own, other = runpod.pod(), runpod.pod()
    headers = {"Authorization": f"Bearer {own.own_key}", "User-Agent": "a-thief"}
    for method, path, body in _calls(own, other):
        url = runpod.sim.api_url + path
        answer = requests.request(method, url, json=body, headers=headers, timeout=10)
        assert answer.status_code == 403, (method, path)
    assert len(runpod.sim.alive()) == 2
    ended = requests.delete(f"{runpod.sim.api_url}/v2/pods/{own.id}", headers=headers, timeout=10)
    assert ended.status_code == 204
    assert [pod["id"] for pod in runpod.sim.alive()] == [other.id]


# --- the text
@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_the_script_is_a_posix_script(tmp_path: Path, shell: str) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "switch.sh").write_text(runpod_switch.SCRIPT, encoding="utf-8")
    words = [found, "-n", str(tmp_path / "switch.sh")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_plan_says_what_the_switch_does() -> None:
    spec = Spec("m", "m", image="i", args=(), port=8000, disk_gb=50, offers=(), heartbeat_seconds=900)
    assert runpod_switch.can_arm(spec)
    assert "900 s" in runpod_switch.describe(spec)
