"""The way to a pod through the HTTP proxy host, beyond what tests/sim/test_proxy_host.py looks at."""

import socket
from urllib.parse import urlsplit

import pytest
import requests

from tests.sim.runpod.api import MODEL, Api, until
from tests.support.wait import eventually

KEY = {"Authorization": "Bearer pod-key"}


def chat(**more: object) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Tell me a long story"}], **more}


@pytest.fixture
def pod(api: Api) -> str:
    pod_id = str(api.create()["id"])
    api.ready(pod_id)
    return pod_id


def test_nobody_listens_yet_or_not_to_the_outside(api: Api) -> None:
    api.sim.set(load_seconds=1000)
    loading = api.create()["id"]
    until(lambda: api.pod(loading)["runtime"] is None, wanted=False)
    assert api.through(loading, "/health").status_code == 502
    api.sim.advance(1000)
    api.ready(loading)
    two_ports = api.create(ports=["8000/http", "9000/http"])["id"]
    api.sim.advance(1000)
    api.ready(two_ports)
    assert api.through(two_ports, "/health", port=9000).status_code == 502


def test_a_server_that_listens_on_the_pods_own_loopback_is_not_reached(api: Api) -> None:
    inside = api.create(name="inside", cmd=[MODEL, "--host", "127.0.0.1"])["id"]
    eventually(lambda: facts(api, inside)["listening"])
    assert api.through(inside, "/health").status_code == 502


def facts(api: Api, pod_id: str) -> dict[str, object]:
    """What the control address knows of a pod."""
    return next(pod for pod in api.sim.state()["pods"] if pod["id"] == pod_id)


def test_query_method_body_and_status_pass_unchanged(api: Api, pod: str) -> None:
    answer = api.through(
        pod, "/tokenize?x=1", method="POST", json={"model": MODEL, "prompt": "one"}, headers=KEY
    )
    assert answer.json()["count"] >= 1
    assert api.through(pod, "/nosuch", headers=KEY).status_code == 404
    head = api.through(pod, "/health", method="HEAD")
    assert head.content == b""
    large = {"model": MODEL, "prompt": "word " * 200_000}
    assert api.through(pod, "/tokenize", method="POST", json=large, headers=KEY).json()["count"] >= 200_000


def long_stream(api: Api, pod_id: str) -> requests.Response:
    """A stream that takes minutes."""
    body = chat(stream=True, max_tokens=1000, min_tokens=1000, ignore_eos=True)
    return api.through(pod_id, "/v1/chat/completions", method="POST", json=body, headers=KEY, stream=True)


def test_a_pod_that_is_deleted_ends_its_streams_as_vllm_does_on_sigterm(api: Api) -> None:
    api.sim.set(tokens_per_second=2)
    pod_id = api.create()["id"]
    api.ready(pod_id)
    with long_stream(api, pod_id) as answer:
        lines = answer.iter_lines(chunk_size=1)
        assert next(lines).startswith(b"data: ")
        assert api.call("DELETE", f"/v2/pods/{pod_id}").status_code == 204
        rest = [line for line in lines if line]
    assert b'"finish_reason":"abort"' in rest[-2]
    assert rest[-1] == b"data: [DONE]"
    assert api.through(pod_id, "/health").status_code == 404


def test_connections_are_kept_open_and_used_again(api: Api, pod: str) -> None:
    address = urlsplit(api.url(pod, "/health"))
    request = f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(request)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
