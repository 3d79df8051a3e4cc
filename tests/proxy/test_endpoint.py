"""Endpoints of all kinds, each with a proxy of its own: away, prefixed, with a key, asked for streams, gone."""

import socket
import time
from pathlib import Path

from tests.proxy.front import Proxy, chat_body, proxy, settings
from tests.proxy.stub import CHAT, Turn, stub
from tests.support.net import free_port
from tests.support.wait import eventually


def test_refused(cache_dir: Path, env: dict[str, str]) -> None:
    """F1: a 502 within a second."""
    with proxy(env | settings(cache_dir, f"http://127.0.0.1:{free_port()}")) as front:
        began = time.monotonic()
        reply = front.ask(chat_body())
        assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_unreachable")
        assert time.monotonic() - began < 1
        assert front.metrics()["requests_in_flight"] == 0


def test_no_such_name(cache_dir: Path, env: dict[str, str]) -> None:
    """F7: a 502 that names the name."""
    with proxy(env | settings(cache_dir, "https://no-such-host.invalid:1")) as front:
        reply = front.ask(chat_body())
        assert reply.status == 502
        assert "no-such-host.invalid" in reply.json["error"]["message"]


def test_a_full_backlog_is_a_time_out(cache_dir: Path, env: dict[str, str]) -> None:
    """F6: nobody accepts and the queue is full, so connecting hangs as it does to a machine that drops packets."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            sock.connect_ex(deaf.getsockname())
        with proxy(env | settings(cache_dir, f"http://127.0.0.1:{deaf.getsockname()[1]}")) as front:
            reply = front.ask(chat_body())
            assert (reply.status, reply.json["error"]["code"]) == (504, "upstream_timeout")
        for sock in waiting:
            sock.close()


def test_a_prefix_and_a_key_of_its_own(cache_dir: Path, env: dict[str, str]) -> None:
    with stub() as server:
        more = {"RUNPOD_ENDPOINT_KEY": "sk-upstream"}
        with proxy(env | settings(cache_dir, f"{server.url}/pod1-8000/v1/chat/completions", **more)) as front:
            mine, yours = {"Authorization": "Bearer a"}, {"Authorization": "Bearer b"}
            assert front.ask(chat_body(), headers=mine).cache == "MISS"
            assert front.ask(chat_body(), headers=yours).cache == "HIT"
        turn = server.turns[0]
        assert turn.target == f"/pod1-8000{CHAT}"
        assert turn.headers["authorization"] == "Bearer sk-upstream"


def test_a_document_is_put_together_from_a_stream(cache_dir: Path, env: dict[str, str]) -> None:
    """F12: nothing on the way falls silent for 100 s."""
    with stub() as server, proxy(env | settings(cache_dir, server.url, UPSTREAM_STREAM="always")) as front:
        reply = front.ask(chat_body("be quick"))
        assert reply.json["choices"][0]["message"]["content"] == "yousaidbequick"
        assert reply.json["usage"]["total_tokens"] == 3
        assert reply.headers["content-type"] == "application/json"
        assert server.turns[0].json["stream_options"] == {"include_usage": True}
        assert front.ask(chat_body("be quick")).body == reply.body
        assert front.ask(chat_body("be quick", stream=True)).cache == "HIT"
        server.script = lambda t: t.reply(b'{"error":{"message":"no"}}', status="400 Bad Request")
        assert front.ask(chat_body("refused")).status == 400
        assert len(server.turns) == 2


def test_half_a_stream_is_no_document(cache_dir: Path, env: dict[str, str]) -> None:
    def script(turn: Turn) -> None:
        turn.stream()
        turn.chunk(b'data: {"choices": [{"index": 0, "delta": {"content": "half"}}]}\n\n')
        turn.reset()

    with stub() as server, proxy(env | settings(cache_dir, server.url, UPSTREAM_STREAM="always")) as front:
        server.script = script
        reply = front.ask(chat_body("half"))
        assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_invalid")


def test_entries_survive_a_restart_and_the_server(cache_dir: Path, env: dict[str, str]) -> None:
    with stub() as server:
        environ = env | settings(cache_dir, server.url)
        with proxy(environ) as front:
            stored = front.ask(chat_body("for ever"))
            assert front.process.stop() == 0
    with proxy(environ) as front:
        assert stored.body == eventually(lambda: _hit(front), within=5)


def _hit(front: Proxy) -> bytes:
    reply = front.ask(chat_body("for ever"))
    return reply.body if reply.cache == "HIT" else b""
