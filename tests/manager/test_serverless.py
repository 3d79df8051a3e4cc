"""The backend `runpod_serverless` through the front door; tests/backends/test_serverless.py has the rest of it."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from llmpod.sim.launch import Simulator
from tests.support.desk import MODEL, Desk
from tests.support.forks import Forks
from tests.support.net import listens
from tests.support.sims import forked
from tests.support.source import ROOT
from tests.support.wait import eventually


@pytest.fixture
def sim(forks: Forks, env: dict[str, str]) -> Iterator[Simulator]:
    with forked(forks, env) as simulator:
        yield simulator


@pytest.fixture
def desk(sim: Simulator, desk: Desk) -> Desk:
    desk.env = {**desk.env, "RUNPOD_API_KEY": sim.key}
    return desk


def key_file(desk: Desk, endpoint: dict[str, Any]) -> str:
    """Where the endpoint's own key is."""
    key = desk.directory / "endpoint_key"
    key.write_text(endpoint["key"] + "\n", encoding="utf-8")
    key.chmod(0o600)
    return key.name


def account_key(desk: Desk, sim: Simulator) -> None:
    """Where the account's key is for the passes of a proxy, whose environment has none."""
    path = Path(desk.env["HOME"]) / ".config" / "llmpod" / "runpod_api_key"
    path.parent.mkdir(parents=True)
    path.write_text(sim.key)
    path.chmod(0o600)


def test_it_is_opened_answers_through_the_proxy_and_is_parked(sim: Simulator, desk: Desk) -> None:
    """What RunPod's own examples have in the environment is enough; and no key is where it does not belong."""
    endpoint = sim.endpoint(model=MODEL)
    own_key = key_file(desk, endpoint)
    more = {"RUNPOD_VLLM_ENDPOINT_ID": endpoint["id"], "RUNPOD_DEFAULT_MODEL": MODEL}
    desk.env = {**desk.env, **more}
    desk.configure("runpod_serverless", {"api_key_file": own_key}, runpod_api_url=sim.api_url)
    config = desk.directory / "pod_config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "model"}))
    desk.manage().expect()
    desk.passes_until("ready")
    eventually(lambda: listens(desk.port), within=20)
    assert eventually(desk.ask, within=20, ignoring=requests.RequestException)["choices"]
    assert "load     workers: " in desk.manage("status").expect().out
    _no_key_is_where_it_does_not_belong(desk, account=sim.key, endpoint=endpoint["key"])
    desk.manage("--shutdown").expect()
    assert desk.state()["phase"] == "stopped"
    (seen,) = sim.state()["endpoints"]
    assert (seen["min"], seen["max"], seen["list"]) == (0, 0, [])


def test_only_a_post_reaches_it_for_any_request_starts_a_worker(sim: Simulator, desk: Desk) -> None:
    """Editors list the models every few minutes; monitors look whether something answers."""
    endpoint = sim.endpoint(model=MODEL, idle_seconds=0.2)
    section = {"api_key_file": key_file(desk, endpoint), "endpoint_id": endpoint["id"]}
    desk.configure("runpod_serverless", section, runpod_api_url=sim.api_url)
    desk.manage().expect()
    desk.passes_until("ready")
    eventually(lambda: listens(desk.port), within=20)
    eventually(lambda: not sim.state()["endpoints"][0]["list"], within=20)
    done = sim.state()["endpoints"][0]["jobs"]["completed"]
    url = f"http://127.0.0.1:{desk.port}"
    for method, path, status in (
        ("GET", "/v1/models", 200),
        ("HEAD", "/v1/models", 200),
        ("GET", f"/v1/models/{MODEL}", 200),
        ("GET", "/v1/health", 405),
        ("HEAD", "/v1/chat/completions", 405),
    ):
        assert requests.request(method, url + path, timeout=30).status_code == status, (method, path)
    assert [m["id"] for m in requests.get(f"{url}/v1/models", timeout=30).json()["data"]] == [MODEL]
    (seen,) = sim.state()["endpoints"]
    assert (seen["jobs"]["completed"], seen["list"]) == (done, [])


def test_warming_up_another_model_starts_no_worker_of_it(sim: Simulator, desk: Desk) -> None:
    endpoint = sim.endpoint(model=MODEL, idle_seconds=0.2)
    tap = {"api_key_file": key_file(desk, endpoint), "endpoint_id": endpoint["id"]}
    words = [sys.executable, "-m", "llmpod.sim.vllm", "--model", "org/local"]
    local = {"backend": "process", "process": {"command": words, "cwd": str(ROOT)}, "start": "on_request"}
    chat = {"backend": "runpod_serverless", "runpod_serverless": tap}
    asked = {"messages": [{"role": "user", "content": "hi"}]}
    url = f"http://127.0.0.1:{desk.port}/v1/chat/completions"
    lines = "".join(json.dumps({"model": name, **asked}) + "\n" for name in (MODEL, "org/local"))
    (desk.directory / "warm.jsonl").write_text(lines)
    config = {
        "models": {"chat": {"model": MODEL, **chat}, "local": {"model": "org/local", **local}},
        "runpod_api_url": sim.api_url,
        "prewarm_cache": "warm.jsonl",
        "proxy_port": desk.port,
        "cache_dir": "cache",
    }
    (desk.directory / "pod_config.json").write_text(json.dumps(config))

    def ready() -> bool:
        desk.manage().expect()
        document = json.loads((desk.directory / "pod_state.json").read_text())
        return bool(document["models"]["chat"]["phase"] == "ready")

    eventually(ready, within=60)
    eventually(lambda: listens(desk.port), within=20)
    other = requests.post(url, json={"model": "org/local", **asked}, timeout=60)
    assert other.status_code == 200, "the proxy's passes have no key yet, and this one needs none"
    account_key(desk, sim)
    eventually(lambda: not sim.state()["endpoints"][0]["list"], within=20)
    done = sim.state()["endpoints"][0]["jobs"]["completed"]
    assert eventually(partial(desk.ask, "org/local"), within=60, ignoring=requests.RequestException)[
        "choices"
    ]
    log = desk.directory / ".llmpod" / "pod_state" / "proxy.log"
    eventually(lambda: '"prewarmed"' in log.read_text(), within=30)
    assert sim.state()["endpoints"][0]["jobs"]["completed"] == done
    assert desk.ask()["choices"], "a person's question starts it"
    assert sim.state()["endpoints"][0]["jobs"]["completed"] > done


def test_each_of_several_answers_with_its_own_key(sim: Simulator, desk: Desk) -> None:
    """The endpoints refuse each other's."""
    names = {"chat": "org/tiny-chat", "coder": "org/tiny-coder"}
    models = {}
    for name, served in names.items():
        endpoint = sim.endpoint(model=served)
        key = desk.directory / f"{name}_key"
        key.write_text(endpoint["key"] + "\n", encoding="utf-8")
        key.chmod(0o600)
        section = {"endpoint_id": endpoint["id"], "api_key_file": key.name}
        models[name] = {"model": served, "runpod_serverless": section}
    config = {"backend": "runpod_serverless", "models": models, "runpod_api_url": sim.api_url}
    shared = {"proxy_port": desk.port, "cache_dir": "cache"}
    (desk.directory / "pod_config.json").write_text(json.dumps({**config, **shared}), encoding="utf-8")

    def ready() -> bool:
        desk.manage().expect()
        document = json.loads((desk.directory / "pod_state.json").read_text())
        return all(record["phase"] == "ready" for record in document["models"].values())

    eventually(ready, within=60)
    eventually(lambda: listens(desk.port), within=20)
    for name, served in names.items():
        for model in (name, served):
            answer = eventually(partial(desk.ask, model), within=20, ignoring=requests.RequestException)
            assert answer["choices"]
    desk.manage("--shutdown").expect()
    assert [(seen["min"], seen["max"]) for seen in sim.state()["endpoints"]] == [(0, 0), (0, 0)]


def _no_key_is_where_it_does_not_belong(desk: Desk, *, account: str, endpoint: str) -> None:
    """The account's is in no file and not in the proxy's environment; the endpoint's only in its own file."""
    for path in desk.directory.rglob("*"):
        text = path.read_bytes() if path.is_file() else b""
        assert account.encode() not in text, path
        assert endpoint.encode() not in text or path.name == "endpoint_key", path
    document = json.loads((desk.directory / "pod_state.json").read_text())
    environ = Path(f"/proc/{document['proxy']['process']['pid']}/environ")
    assert not environ.exists() or account.encode() not in environ.read_bytes()  # macOS has no /proc
