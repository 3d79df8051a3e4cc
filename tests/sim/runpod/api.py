"""Not the product's client: plain calls to the simulator, as any HTTP client would make them."""

from collections.abc import Callable, Mapping
from typing import Any

import requests

from llmpod.sim.launch import Simulator
from tests.support.wait import eventually

AGENT = "a-test/1.0"
MODEL = "org/tiny-chat"
GPU = "NVIDIA L4"


class Api:
    """The API and the proxy host of one simulator, with its key."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update({"Authorization": f"Bearer {sim.key}", "User-Agent": AGENT})

    def close(self) -> None:
        self._session.close()

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        """One call; `more` is for requests."""
        return self._session.request(method, self.sim.api_url + path, **{"timeout": 20, **more})

    def create(self, **more: Any) -> dict[str, Any]:
        """A pod that was created."""
        answer = self.call("POST", "/v2/pods", json=body(**more))
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def pod(self, pod_id: str) -> dict[str, Any]:
        answer = self.call("GET", f"/v2/pods/{pod_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ids(self, **query: str) -> list[str]:
        """The ids that one LIST shows."""
        return [pod["id"] for pod in self.call("GET", "/v2/pods", params=query).json()["pods"]]

    def url(self, pod_id: str, path: str, port: int = 8000) -> str:
        """An address behind the HTTP proxy."""
        return self.sim.proxy_url.replace("{id}", pod_id).replace("{port}", str(port)) + path

    def through(
        self, pod_id: str, path: str, *, method: str = "GET", port: int = 8000, **more: Any
    ) -> requests.Response:
        """One request to a pod through the HTTP proxy, without a key."""
        more.setdefault("timeout", 20)
        return requests.request(method, self.url(pod_id, path, port), **more)  # noqa: S113 - set above

    def ready(self, pod_id: str) -> None:
        """Waits until the model server answers."""
        eventually(lambda: self.through(pod_id, "/health").status_code == 200, within=15)


def body(**more: Any) -> dict[str, Any]:
    """A create request that a vLLM pod needs; None leaves a field out."""
    fields: dict[str, Any] = {
        "name": "a-pod",
        "image": "vllm/vllm-openai:v0.29.0",
        "gpu": {"id": GPU, "count": 1},
        "disk": 60,
        "ports": ["8000/http"],
        "env": {"VLLM_API_KEY": "pod-key"},
        "cmd": [MODEL, "--host", "0.0.0.0", "--port", "8000"],  # noqa: S104 - words, nothing is bound
        **more,
    }
    return {name: value for name, value in fields.items() if value is not None}


def problem(answer: requests.Response) -> Mapping[str, Any]:
    """The body of a refusal, which must be problem+json."""
    assert answer.headers["content-type"].startswith("application/problem+json"), answer.text
    found: dict[str, Any] = answer.json()
    assert found["status"] == answer.status_code
    return found


def until(look: Callable[[], Any], wanted: Any) -> None:
    """Waits until `look()` gives what is wanted."""
    eventually(lambda: look() == wanted, within=10)
