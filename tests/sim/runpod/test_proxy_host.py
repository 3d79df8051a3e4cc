"""The way to a pod from outside: by the HTTP proxy host, and by TCP ports."""

import json
import socket
import time
from itertools import pairwise
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


def test_only_declared_http_ports_of_pods_that_live(api: Api, pod: str) -> None:
    assert api.through(pod, "/health").status_code == 200
    assert api.through(pod, "/health", port=8001).status_code == 404
    assert api.through("nosuchpod12345", "/health").status_code == 404
    no_http = api.create(ports=["8000/tcp", "8000"])["id"]
    assert api.through(no_http, "/health").status_code == 404


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


def test_a_pod_by_its_public_name(api: Api, pod: str) -> None:
    address = urlsplit(api.url(pod, "/"))
    host = {"Host": f"{pod}-8000.proxy.runpod.net"}
    answer = requests.get(f"http://{address.netloc}/v1/models", headers={**host, **KEY}, timeout=10)
    assert answer.json()["data"][0]["id"] == MODEL


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


def test_pieces_of_a_stream_arrive_when_they_are_made(api: Api) -> None:
    api.sim.set(tokens_per_second=20)
    pod_id = api.create()["id"]
    api.ready(pod_id)
    body = chat(stream=True, max_tokens=20, min_tokens=20, ignore_eos=True)
    arrivals = []
    last = b""
    with api.through(
        pod_id, "/v1/chat/completions", method="POST", json=body, headers=KEY, stream=True
    ) as answer:
        for line in answer.iter_lines(chunk_size=1):
            if line:
                arrivals.append(time.monotonic())
                last = line
    assert last == b"data: [DONE]"
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    assert sum(gap > 0.02 for gap in gaps) >= 10, gaps


def test_524_when_the_first_byte_is_late(api: Api) -> None:
    api.sim.set(first_byte_seconds=0.3, first_token_seconds=30)
    pod_id = api.create()["id"]
    api.ready(pod_id)
    began = time.monotonic()
    answer = api.through(pod_id, "/v1/chat/completions", method="POST", json=chat(), headers=KEY)
    assert answer.status_code == 524
    assert 0.3 <= time.monotonic() - began < 5
    assert "json" not in answer.headers["content-type"]


def running(api: Api, pod_id: str) -> float:
    """Requests that the model server works on, by its own metrics."""
    text = api.through(pod_id, "/metrics", headers=KEY).text
    found = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running")]
    return float(found[0].rpartition(" ")[2])


def long_stream(api: Api, pod_id: str) -> requests.Response:
    """A stream that takes minutes."""
    body = chat(stream=True, max_tokens=1000, min_tokens=1000, ignore_eos=True)
    return api.through(pod_id, "/v1/chat/completions", method="POST", json=body, headers=KEY, stream=True)


def test_a_client_that_leaves_is_noticed_by_the_pod(api: Api) -> None:
    api.sim.set(tokens_per_second=2)
    pod_id = api.create()["id"]
    api.ready(pod_id)
    answer = long_stream(api, pod_id)
    lines = answer.iter_lines(chunk_size=1)
    assert next(lines).startswith(b"data: ")
    assert running(api, pod_id) == 1
    answer.close()
    eventually(lambda: running(api, pod_id) == 0)


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


def test_what_a_pod_cuts_stays_cut(api: Api, pod: str) -> None:
    with api.through(
        pod,
        "/v1/chat/completions",
        method="POST",
        json=chat(stream=True),
        headers={**KEY, "x-sim-fault": "cut@3"},
        stream=True,
    ) as answer:
        lines = answer.iter_lines(chunk_size=1)
        assert next(lines).startswith(b"data: ")
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            list(lines)


def test_connections_are_kept_open_and_used_again(api: Api, pod: str) -> None:
    address = urlsplit(api.url(pod, "/health"))
    request = f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(request)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_tcp_port_is_reached_directly(api: Api) -> None:
    pod_id = api.create(ports=["8000/tcp"])["id"]
    until(lambda: api.pod(pod_id)["runtime"] is None, wanted=False)

    def mapped() -> list[dict[str, object]]:
        runtime = api.pod(pod_id)["runtime"] or {"ports": []}
        return [port for port in runtime["ports"] if port["type"] == "tcp" and port["private"] == 8000]

    found = eventually(mapped)[0]
    url = f"http://{found['ip']}:{found['public']}/v1/models"
    models = eventually(
        lambda: requests.get(url, headers=KEY, timeout=10).json(), ignoring=requests.ConnectionError
    )
    assert json.dumps(MODEL) in json.dumps(models)
