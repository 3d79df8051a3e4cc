import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from llmpod.sim.launch import Simulator
from tests.support.wait import eventually

AT_ONCE = {"container_seconds": 0, "load_seconds": 0, "first_token_seconds": 0, "tokens_per_second": 0}
IMAGE = "vllm/vllm-openai:v0.29.0"
VLLM_KEY = "sk-of-the-pod"


@dataclass
class Client:
    """Somebody with the account's key, as the manager is, and with the pod's, as the proxy is."""

    sim: Simulator
    http: httpx.Client

    def call(self, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        given = {"authorization": f"Bearer {self.sim.key}", "user-agent": "sim-tests"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(method, self.sim.api_url + path, json=body, headers={**given, **named})

    def pod(self, **changes: Any) -> dict[str, Any]:
        """A pod that was created."""
        answer = self.call("POST", "/v2/pods", pod_body(**changes))
        assert answer.status_code == 201, answer.text
        pod: dict[str, Any] = answer.json()
        return pod

    def url(self, pod: dict[str, Any], port: int = 8000) -> str:
        return self.sim.proxy_url.format(id=pod["id"], port=port)

    def ask(self, pod: dict[str, Any], path: str = "/health", **headers: str) -> httpx.Response:
        return self.http.get(self.url(pod) + path, headers=headers)

    def ready(self, pod: dict[str, Any]) -> dict[str, Any]:
        """Wait until the pod's server answers."""
        eventually(lambda: self.ask(pod).status_code == 200, within=20)
        return pod

    def chat(self, pod: dict[str, Any], *, fault: str = "", **fields: Any) -> httpx.Response:
        body = {"model": "org/m", "messages": [{"role": "user", "content": "hi"}], **fields}
        headers = {"authorization": f"Bearer {VLLM_KEY}", **({"x-sim-fault": fault} if fault else {})}
        return self.http.post(self.url(pod) + "/v1/chat/completions", json=body, headers=headers)

    def facts(self, pod: dict[str, Any]) -> dict[str, Any]:
        """What the control API knows of a pod."""
        facts: dict[str, Any] = next(one for one in self.sim.state()["pods"] if one["id"] == pod["id"])
        return facts


def pod_body(**changes: Any) -> dict[str, Any]:
    body = {
        "name": "a-pod",
        "image": IMAGE,
        "gpu": {"id": "NVIDIA L4", "count": 1},
        "ports": ["8000/http", "8000/tcp"],
        "env": {"VLLM_API_KEY": VLLM_KEY},
        "cmd": ["org/m", "--port", "8000"],
    }
    return {name: value for name, value in {**body, **changes}.items() if value is not None}


@contextmanager
def client_of(**options: Any) -> Iterator[Client]:
    options = {"pods": "inline", "behavior": AT_ONCE, **options}
    with Simulator.start(**options) as sim, httpx.Client(timeout=20) as http:
        yield Client(sim, http)


@pytest.fixture(scope="module")
def shared() -> Iterator[Client]:
    """One simulator for the tests of a file; `client` resets it before each."""
    with client_of() as client:
        yield client


@pytest.fixture
def client(shared: Client) -> Client:
    shared.sim.reset()
    return shared


@pytest.fixture
def raw(client: Client) -> Iterator[socket.socket]:
    """A bare connection to the proxy host."""
    address = httpx.URL(client.sim.proxy_url.split("/{")[0])
    with socket.create_connection((address.host, address.port or 80), timeout=20) as connection:
        yield connection
