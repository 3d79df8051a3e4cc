"""The HTTP proxy host and the TCP ports: how a pod is reached, and how it is not."""

import socket
import time

import httpx
import pytest

from tests.sim.conftest import VLLM_KEY, Client
from tests.support.wait import eventually


def test_what_is_not_declared_or_not_there_is_404(client: Client) -> None:
    pod = client.ready(client.pod(ports=["8000/http", "8001", "22/tcp"]))
    for port in (8001, 22, 9000):
        assert client.http.get(client.url(pod, port)).status_code == 404
    for path in ("/", "/nobody-8000/health", "/health"):
        assert client.http.get(client.sim.proxy_url.split("/{")[0] + path).status_code == 404
    client.call("DELETE", f"/v2/pods/{pod['id']}")
    assert client.ask(pod).status_code == 404


def test_a_declared_port_where_nobody_listens_is_502(client: Client) -> None:
    pod = client.ready(client.pod(ports=["8000/http", "8001/http"]))
    answer = client.http.get(client.url(pod, 8001))
    assert answer.status_code == 502
    assert answer.headers["server"] == "cloudflare"
    lonely = client.pod(cmd=["org/m", "--host", "127.0.0.1"])
    eventually(lambda: client.facts(lonely)["listening"])
    assert client.ask(lonely).status_code == 502, "it listens on the container's own loopback only"


def test_the_port_opens_when_the_model_is_loaded(client: Client) -> None:
    client.sim.set(container_seconds=100, load_seconds=50)
    pod = client.pod()
    assert client.ask(pod).status_code == 502
    client.sim.advance(100)
    eventually(lambda: client.call("GET", f"/v2/pods/{pod['id']}").json()["runtime"]["ports"])
    assert client.ask(pod).status_code == 502
    client.sim.advance(49)
    assert client.ask(pod).status_code == 502
    client.sim.advance(1)
    client.ready(pod)


def test_the_first_byte_has_its_time_and_no_more(client: Client) -> None:
    client.sim.set(first_byte_seconds=0.3)
    pod = client.ready(client.pod())
    begun = time.monotonic()
    assert client.chat(pod, fault="slow-first=30").status_code == 524
    assert 0.3 <= time.monotonic() - begun < 10
    assert client.chat(pod, fault="slow-first=0.01").status_code == 200


def test_the_pods_own_answers_pass_unchanged(client: Client) -> None:
    pod = client.ready(client.pod())
    assert client.ask(pod, "/v1/models").json() == {"error": "Unauthorized"}
    models = client.ask(pod, "/v1/models", authorization=f"Bearer {VLLM_KEY}")
    assert [model["id"] for model in models.json()["data"]] == ["org/m"]
    head = client.http.head(client.url(pod) + "/health")
    assert (head.status_code, head.headers["allow"], head.content) == (405, "GET", b"")
    assert client.ask(pod, "/nothing?a=%2F").json() == {"detail": "Not Found"}


def test_the_pod_has_a_host_name_as_well(client: Client) -> None:
    pod = client.ready(client.pod())
    base = client.sim.proxy_url.split("/{")[0]
    named = {"host": f"{pod['id']}-8000.proxy.runpod.net"}
    assert client.http.get(f"{base}/version", headers=named).json() == {"version": "0.32.0"}


def test_a_stream_passes_piece_by_piece(client: Client) -> None:
    client.sim.set(tokens_per_second=20)
    pod = client.ready(client.pod())
    body = {
        "model": "org/m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 10,
        "stream": True,
    }
    headers = {"authorization": f"Bearer {VLLM_KEY}"}
    url = client.url(pod) + "/v1/chat/completions"
    with client.http.stream("POST", url, json=body, headers=headers) as answer:
        arrivals = [time.monotonic() for line in answer.iter_lines() if line.startswith("data: ")]
    assert len(arrivals) == 12  # role, ten tokens, [DONE]
    assert arrivals[-1] - arrivals[0] > 0.4, "it came at once: somebody collected it"


def test_a_cut_stream_is_cut_for_the_client_too(client: Client) -> None:
    pod = client.ready(client.pod())
    with pytest.raises(httpx.TransportError):
        client.chat(pod, fault="cut@2", stream=True)


def stats(client: Client, pod: dict[str, object]) -> dict[str, int]:
    found: dict[str, int] = client.ask(pod, "/__sim/stats").json()
    return found


def test_a_client_that_leaves_is_missed_in_the_pod(client: Client, raw: socket.socket) -> None:
    client.sim.set(tokens_per_second=5)
    pod = client.ready(client.pod())
    body = b'{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":200,"ignore_eos":true}'
    head = (
        f"POST /{pod['id']}-8000/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    )
    raw.sendall(f"{head}authorization: Bearer {VLLM_KEY}\r\n\r\n".encode() + body)
    assert raw.recv(200).startswith(b"HTTP/1.1 200 ")
    assert stats(client, pod)["aborted"] == 0
    raw.close()
    eventually(lambda: stats(client, pod)["aborted"] == 1)


def test_a_fault_can_wait_for_the_next_requests_to_any_model(client: Client) -> None:
    pod = client.ready(client.pod())
    client.sim.fault("model", "503", times=2)
    assert [client.chat(pod).status_code for _ in range(3)] == [503, 503, 200]


def test_a_server_that_dies_after_some_requests_comes_back_and_uptime_falls(client: Client) -> None:
    client.sim.set(die_after=2)
    pod = client.ready(client.pod())
    client.sim.advance(500)
    assert client.chat(pod).status_code == 200
    before = client.facts(pod)["server_port"]
    assert client.chat(pod).status_code == 200
    eventually(lambda: client.facts(pod)["server_port"] not in (None, before))
    shown = client.call("GET", f"/v2/pods/{pod['id']}").json()
    assert shown["status"] == "RUNNING"
    assert shown["runtime"]["uptime"] < 100
    client.ready(pod)


def test_a_tcp_port_leads_to_the_pod_and_moves_with_each_restart(client: Client) -> None:
    pod = client.ready(client.pod())

    def address() -> str | None:
        runtime = client.call("GET", f"/v2/pods/{pod['id']}").json()["runtime"]
        tcp = [port for port in runtime["ports"] if port["type"] == "tcp"]
        return f"http://{tcp[0]['ip']}:{tcp[0]['public']}" if tcp else None

    first = eventually(address)
    assert client.http.get(f"{first}/version").json() == {"version": "0.32.0"}
    client.call("POST", f"/v2/pods/{pod['id']}/action", {"action": "restart"})
    second = eventually(address)
    client.ready(pod)
    assert first != second
    assert client.http.get(f"{second}/version").status_code == 200
    with pytest.raises(httpx.TransportError):
        client.http.get(f"{first}/version")


def test_an_http_port_that_nobody_declared_shows_with_an_address_nobody_reaches(client: Client) -> None:
    pod = client.ready(client.pod(ports=["8000/http"]))
    ports = client.call("GET", f"/v2/pods/{pod['id']}").json()["runtime"]["ports"]
    assert ports == [{"ip": "100.65.14.155", "private": 19123, "public": 60821, "type": "http"}]


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        ({"cmd": None, "args": "--model org/m --max-model-len 100"}, "org/m"),
        ({"cmd": None, "args": '{"entrypoint": ["vllm", "serve"], "cmd": ["org/m"]}'}, "org/m"),
        ({"cmd": ["org/m", "--served-model-name=short"]}, "short"),
        (
            {
                "entrypoint": ["/bin/bash", "-c"],
                "cmd": ['watch & exec vllm serve "$@"', "name", "org/m", "--enforce-eager", "--port", "8000"],
            },
            "org/m",
        ),
        (
            {
                "entrypoint": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
                "cmd": ["--model", "x/y"],
            },
            "x/y",
        ),
        ({"cmd": [], "templateId": "vllm0tmpl1", "image": None}, "Qwen/Qwen3-0.6B"),
        ({"cmd": None, "templateId": "vllm0tmpl1", "image": None}, "meta-llama/Llama-3-8B"),
    ],
)
def test_the_command_decides_what_is_served(client: Client, changes: dict[str, object], model: str) -> None:
    pod = client.ready(client.pod(**changes))
    models = client.ask(pod, "/v1/models", authorization=f"Bearer {VLLM_KEY}").json()
    assert [entry["id"] for entry in models["data"]] == [model]


def test_an_image_that_is_no_vllm_serves_nothing(client: Client) -> None:
    pod = client.pod(image="x/y:1", cmd=["sleep", "infinity"])
    eventually(lambda: client.call("GET", f"/v2/pods/{pod['id']}").json()["runtime"])
    assert client.ask(pod).status_code == 502
    assert client.facts(pod)["listening"] is False
