"""The backend `process` with real model servers on CPU, one suite for all: llama.cpp, vLLM and `transformers serve`.

Their models have random weights and are made on the spot. The first of them is quick enough for every run; the other
two are `heavy` (`make test-real`).
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse

import pytest

from tests.proxy.front import Client, Reply
from tests.support import procfs
from tests.support.desk import Desk
from tests.support.net import listens
from tests.support.real_servers import SERVERS, Server
from tests.support.wait import eventually

pytestmark = [pytest.mark.component, pytest.mark.timeout(1800)]
CHAT = "/v1/chat/completions"
START_SECONDS = 900.0  # vLLM took 35 s on two quiet cores, several minutes on busy ones
ALL = [pytest.param(name, marks=[] if name == "llama.cpp" else [pytest.mark.heavy]) for name in SERVERS]


@pytest.fixture
def server(request: pytest.FixtureRequest, desk: Desk) -> Server:
    make, why_not = SERVERS[request.param]
    if reason := why_not():
        pytest.skip(reason)
    return make(desk.directory)


def begin(desk: Desk, server: Server, section: Mapping[str, object] | None = None, **changes: object) -> None:
    """A proxy that listens; the server starts when it is to."""
    settings = {**server.section, "port": desk.model_port, **(section or {})}
    desk.configure("process", settings, **{**server.changes, **changes})
    desk.manage().expect()
    eventually(lambda: listens(desk.port), within=20)


def body(server: Server, text: str, **more: object) -> bytes:
    messages = [{"role": "user", "content": text}]
    asked = {"model": server.model, "messages": messages, "max_tokens": 8, "temperature": 0}
    return json.dumps({**asked, **more}).encode()


def ask(desk: Desk, question: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    with Client(desk.port, timeout=START_SECONDS) as client:
        client.send("POST", CHAT, question, headers)
        return client.reply()


def text_of(reply: Reply) -> str:
    """What a stream said."""
    lines = [line[6:] for line in reply.body.splitlines() if line.startswith(b"data: {")]
    deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def stored(desk: Desk, question: bytes) -> bool:
    reply = ask(desk, question, {"Cache-Control": "only-if-cached"})
    assert reply.status in (200, 504), reply.body
    return reply.status == 200


@pytest.mark.parametrize("server", ALL, indirect=True)
def test_the_first_request_starts_it_and_silence_stops_it(desk: Desk, server: Server) -> None:
    """What is stored of one form serves the other."""
    begin(desk, server, start="on_request", idle_seconds=2, start_timeout_seconds=900)
    assert desk.state()["phase"] == "stopped"
    first = ask(desk, body(server, "one"))
    assert (first.status, first.cache) == (200, "MISS"), first.body
    assert first.json["usage"]["completion_tokens"] == 8
    assert desk.state()["phase"] == "ready"
    with Client(desk.model_port) as stranger:
        stranger.send("GET", "/v1/models")
        assert stranger.reply("GET").status == (401 if "require_key" in server.settings else 200)
    again = ask(desk, body(server, "one"))
    assert (again.cache, again.body) == ("HIT", first.body)
    streamed = ask(desk, body(server, "one", stream=True))
    assert streamed.cache == "HIT"
    assert streamed.body.endswith(b"data: [DONE]\n\n")
    assert text_of(streamed) == first.json["choices"][0]["message"]["content"]
    live(desk, server)
    assert server.log in desk.manage("logs").expect().out
    eventually(lambda: desk.state()["phase"] == "stopped", within=60)
    eventually(lambda: not listens(desk.model_port), within=20)
    assert ask(desk, body(server, "one")).cache == "HIT"
    assert desk.state()["phase"] == "stopped"


def live(desk: Desk, server: Server) -> None:
    """A stream that nobody asked for before; without `[DONE]` it passes, and is not taken for whole."""
    question = body(server, "two", stream=True)
    first = ask(desk, question)
    assert (first.status, first.cache, first.cut) == (200, "MISS", False), first.body
    assert first.body.endswith(b"data: [DONE]\n\n") == server.ends_streams
    again = ask(desk, question)
    assert again.cache == ("HIT" if server.ends_streams else "MISS")
    assert text_of(again) == text_of(first) != ""
    if server.ends_streams:
        assert again.body == first.body


class Underway:
    """Two long answers of one server: one streamed, which has begun, and one not."""

    def __init__(self, desk: Desk, server: Server) -> None:
        self._desk = desk
        self.live = body(server, "live", stream=True, **server.long)
        self.plain = body(server, "plain", **server.long)
        self._clients = [Client(desk.port, timeout=60) for _ in range(2)]
        self._clients[0].send("POST", CHAT, self.live)
        self._stream = self._clients[0].open_reply()
        self._await_words(self._stream)
        self._clients[1].send("POST", CHAT, self.plain)

    @staticmethod
    def _await_words(stream: HTTPResponse) -> None:
        begun = b""
        while begun.count(b'"content"') < 3:
            piece = stream.read1(65536)
            assert piece, begun
            begun += piece

    def ended_and_not_believed(self) -> None:
        """Neither was whole, and neither is stored."""
        rest = self._clients[0].rest(self._stream)
        broken = (b'"finish_reason":"abort"', b'{"error"')  # vLLM goes on to `[DONE]` after either
        assert rest.cut or any(sign in rest.body for sign in broken), rest.body[-600:]
        plain = self._clients[1].reply()
        assert plain.status != 200 or plain.json["choices"][0]["finish_reason"] == "abort", plain.body
        assert not any(stored(self._desk, question) for question in (self.live, self.plain))

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture
def underway(desk: Desk, server: Server) -> Iterator[Underway]:
    """The server runs, and has work."""
    begin(desk, server, {"stop_seconds": 1}, max_restarts=0)
    desk.passes_until("ready", within=START_SECONDS)
    eventually(lambda: ask(desk, body(server, "hi")).status == 200, within=30)
    answers = Underway(desk, server)
    yield answers
    answers.close()


@pytest.mark.parametrize("server", ALL, indirect=True)
def test_ended_in_mid_answer_nothing_of_it_is_stored_and_nothing_runs_on(
    desk: Desk, underway: Underway
) -> None:
    """Also one that goes silent when it is told to end, or would first finish what it is at."""
    desk.manage("down").expect()
    underway.ended_and_not_believed()
    assert desk.state()["phase"] == "stopped"
    assert not listens(desk.model_port)


@pytest.mark.heavy
@pytest.mark.parametrize("server", ["vllm"], indirect=True)
@pytest.mark.parametrize("end", ["engine killed", "told to end"])
def test_vllm_that_ends_well_in_mid_answer_is_not_believed(desk: Desk, underway: Underway, end: str) -> None:
    """Both answers are whole to HTTP and its exit code is 0; or, told to end while the machine is busy, it hangs."""
    eventually(lambda: at_work(desk.model_port) == 2, within=30)
    engine = next(p for p in procfs.descendants(os.getpid()) if "EngineCore" in p.command)
    server = procfs.read(engine.parent)
    assert server is not None
    if end == "engine killed":
        engine.kill()
        eventually(lambda: procfs.read(server.parent) is None, within=60)  # its warden has noted how it ended
    else:
        os.kill(server.pid, signal.SIGTERM)
    error = desk.passes_until("failed", within=120)["error"]
    assert "exit code 0" in error or end == "told to end"
    underway.ended_and_not_believed()


def at_work(port: int) -> float:
    """How many requests vLLM works on."""
    with Client(port) as client:
        client.send("GET", "/metrics")
        lines = client.reply("GET").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))


@pytest.mark.parametrize("server", ["llama.cpp"], indirect=True)
def test_one_that_dies_is_started_again(desk: Desk, server: Server) -> None:
    begin(desk, server)
    desk.passes_until("ready")
    before = desk.state()["name"]
    for process in [process for process in desk.servers() if "llama_server" in process.command]:
        process.kill()
    eventually(lambda: desk.passes_until("ready")["name"] != before, within=60)


@pytest.mark.heavy
@pytest.mark.parametrize("server", ALL, indirect=True)
def test_a_wake_adds_little_to_the_servers_own_start(
    desk: Desk, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the request to the start of its process, and from its first answer to anybody to the request's."""
    begin(desk, server, start="on_request", start_timeout_seconds=900)
    with Client(desk.port, timeout=START_SECONDS) as client:
        asked = time.clock_gettime(time.CLOCK_BOOTTIME)
        client.send("POST", CHAT, body(server, "one"))
        started = eventually(lambda: started_at(desk.model_port), within=60, every=0.005)
        eventually(lambda: serves(desk.model_port), within=START_SECONDS, every=0.005, ignoring=OSError)
        serving = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert client.reply().status == 200
    answered = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert ask(desk, body(server, "two")).cache == "MISS"
    usual = time.clock_gettime(time.CLOCK_BOOTTIME) - answered
    before, after = started - asked, answered - serving - usual
    with capsys.disabled():
        took = f"its own start {serving - started:.2f} s, before it {before:.2f} s, after it {after:.2f} s"
        sys.stdout.write(f"\n{server.command[0]}: {took}\n")
    assert before + after < 3, took  # 0.3 on quiet cores


def started_at(port: int) -> float:
    """When the server of this port was started, in seconds since boot; 0: not yet."""
    mine = (p for p in procfs.descendants(os.getpid()) if p.command.endswith(f"--port {port}"))
    return min((p.started / os.sysconf("SC_CLK_TCK") for p in mine), default=0.0)


def serves(port: int) -> bool:
    """Whether it answers at all, be it that it wants a key."""
    with Client(port) as client:
        client.send("GET", "/v1/models")
        return client.reply("GET").status in (200, 401)
