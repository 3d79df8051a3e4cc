"""The HTTP edge: limits, strictness, order, idle connections; every refusal in the shape that clients read."""

import json
import select
from pathlib import Path

import pytest

from tests.proxy.front import Client, Proxy, chat_body, proxy, settings
from tests.proxy.stub import CHAT, Stub, chat, stub
from tests.support.wait import eventually

BODY = json.dumps(chat_body("edge")).encode()


def error_of(front: Proxy, raw: bytes) -> tuple[int, str]:
    """Status and code of the answer to raw bytes, after which the proxy hangs up."""
    with Client(front.port) as client:
        client.sock.sendall(raw)
        reply = client.reply()
        assert reply.headers["connection"] == "close"
        assert client.sock.recv(1) == b""
        return reply.status, reply.json["error"]["code"]


def post(headers: bytes, body: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: localhost\r\n%b\r\n%b" % (CHAT.encode(), headers, body)


@pytest.mark.parametrize(
    "raw",
    [
        post(b"a: " + b"b" * 40_000 + b"\r\n"),
        post(b"".join(b"a%d: b\r\n" % n for n in range(101))),
        post(b"a: " + b"b" * 900_000),
    ],
    ids=["long field", "many fields", "endless field"],
)
def test_headers_are_bounded(front: Proxy, server: Stub, raw: bytes) -> None:
    before = front.metrics()["refused_at_edge_total"]
    assert error_of(front, raw) == (431, "header_too_large")
    assert front.metrics()["refused_at_edge_total"] == before + 1
    assert not server.turns


def test_a_header_that_drips_is_bounded_too(front: Proxy) -> None:
    with Client(front.port) as client:
        client.sock.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n")
        for _ in range(10):
            client.sock.sendall(b"x: " + b"y" * 4000 + b"\r\n")
        assert client.open_reply().status == 431


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n\r\n",
        post(b"content-length: 1\r\ncontent-length: 2\r\n", b"ab"),
        post(b"content-length: 1\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n"),
        post(b"bad name: x\r\n"),
        post(b"content-length: -1\r\n"),
        post(b"content-type: application/json\r\ntransfer-encoding: chunked\r\n", b"zz\r\n"),
        b"GET /v1/models HTTP/9.9\r\nhost: localhost\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(front: Proxy, server: Stub, raw: bytes) -> None:
    assert error_of(front, raw)[0] == 400
    assert not server.turns


@pytest.mark.parametrize("announced", [b"content-length: 33554433\r\n", b"content-length: 99999999999\r\n"])
def test_bodies_are_bounded_before_they_come(front: Proxy, announced: bytes) -> None:
    assert error_of(front, post(b"content-type: application/json\r\n" + announced)) == (
        413,
        "request_too_large",
    )


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "TEXT/PLAIN;x=application/json"]
)
def test_types_that_pages_may_send_are_refused(front: Proxy, server: Stub, kind: str) -> None:
    reply = front.ask(BODY, headers={"Content-Type": kind})
    assert (reply.status, reply.json["error"]["code"]) == (415, "unsupported_media_type")
    assert "application/json" in reply.json["error"]["message"]
    assert not server.turns


@pytest.mark.parametrize(
    "path", ["/v1/../pause", "/v1/%2e%2e/pause", "/v1/%252e%252e/pause", "/v1/a%5cb", "/v1/a%00b", "/v1/./x"]
)
def test_no_path_leads_out_of_v1(front: Proxy, server: Stub, path: str) -> None:
    assert front.get(path).status == 400
    assert not server.turns


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_methods_that_leak_or_tunnel(front: Proxy, server: Stub, method: str) -> None:
    assert front.get("/v1/models", method=method).status in (400, 405)
    assert not server.turns


def test_compressed_bodies_are_refused(front: Proxy, server: Stub) -> None:
    assert front.ask(BODY, headers={"Content-Encoding": "gzip"}).status == 415


def test_pipelined_requests_are_answered_in_order(front: Proxy, server: Stub) -> None:
    """A hit that could be answered at once waits for the miss before it."""
    stored = json.dumps(chat_body("stored")).encode()
    front.ask(stored)
    with front.client() as client:
        for body in (stored, json.dumps(chat_body("pipelined miss")).encode(), stored, stored):
            client.send("POST", CHAT, body)
        client.send("GET", "/livez")
        replies = [client.reply() for _ in range(5)]
    assert [r.cache for r in replies] == ["HIT", "MISS", "HIT", "HIT", ""]
    assert [r.body for r in replies[:3]] == [
        chat(f"you said {x}") for x in ("stored", "pipelined miss", "stored")
    ]
    assert replies[4].json == {"status": "ok"}


def test_one_connection_serves_many_large_requests(front: Proxy, server: Stub) -> None:
    """Bodies larger than a read, kept alive: no part of one counts as the next one's header."""
    body = json.dumps(chat_body("x" * 100_000)).encode()
    with front.client() as client:
        for cache in ("MISS", "HIT", "HIT", "HIT"):
            client.send("POST", CHAT, body)
            assert client.reply().cache == cache


def test_a_request_in_single_bytes(front: Proxy, server: Stub) -> None:
    raw = post(b"content-type: application/json\r\ncontent-length: %d\r\n" % len(BODY), BODY)
    for _ in range(2):
        with front.client() as client:
            for byte in raw:
                client.sock.sendall(bytes([byte]))
            assert client.reply().body == chat("you said edge")


def test_chunked_uploads(front: Proxy, server: Stub) -> None:
    half = len(BODY) // 2
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:half], BODY[half:], b""))
    with front.client() as client:
        client.sock.sendall(post(b"content-type: application/json\r\ntransfer-encoding: chunked\r\n", chunks))
        assert client.reply().body == chat("you said edge")


def test_a_chunked_upload_without_end_is_bounded(cache_dir: Path, env: dict[str, str]) -> None:
    with stub() as server, proxy(env | settings(cache_dir, server.url)) as front, front.client() as client:
        client.sock.sendall(post(b"content-type: application/json\r\ntransfer-encoding: chunked\r\n"))
        chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
        with pytest.raises(OSError, match=r"reset|[Pp]ipe"):
            client.sock.sendall(chunk * 256)
        assert not server.turns
        assert front.get("/livez").status == 200


def test_expect_continue(front: Proxy, server: Stub) -> None:
    head = b"content-type: application/json\r\ncontent-length: %d\r\nexpect: 100-continue\r\n" % len(BODY)
    with front.client() as client:
        client.sock.sendall(post(head))
        assert client.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sock.sendall(BODY)
        assert client.reply().status == 200


def test_http_1_0_and_connection_close(front: Proxy, server: Stub) -> None:
    for version, extra in ((b"1.0", b""), (b"1.1", b"connection: close\r\n")):
        with front.client() as client:
            head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(BODY) + extra
            client.sock.sendall(post(head, BODY).replace(b"HTTP/1.1", b"HTTP/" + version))
            assert client.reply().body == chat("you said edge")
            assert client.sock.recv(1) == b""


def test_an_upgrade_is_not_taken(front: Proxy, server: Stub) -> None:
    """Java's client offers h2c with every request; the answer comes, the connection ends."""
    head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(BODY)
    with front.client() as client:
        client.sock.sendall(post(head + b"connection: Upgrade\r\nupgrade: h2c\r\n", BODY))
        assert client.reply().body == chat("you said edge")


def test_idle_connections_are_closed(cache_dir: Path, env: dict[str, str]) -> None:
    """Silent from the start, silent after an answer, silent in the middle of a header."""
    with (
        stub() as server,
        proxy(
            env
            | settings(cache_dir, server.url, LLMPOD_KEEP_ALIVE_SECONDS="0.5", LLMPOD_HEADER_SECONDS="0.5")
        ) as front,
    ):
        with Client(front.port) as silent, Client(front.port) as served, Client(front.port) as half:
            served.send("POST", CHAT, BODY)
            assert served.reply().status == 200
            half.sock.sendall(b"POST /v1/x HTTP/1.1\r\nhos")
            assert half.reply().status == 408
            for client in (silent, served, half):
                assert client.sock.recv(1) == b""
        busy_script = server.script

        def slow(turn: object) -> None:
            closed, _, _ = select.select([busy.sock], [], [], 1.0)  # twice the limit; others read from it
            assert not closed
            busy_script(turn)  # type: ignore[arg-type]  # handed through as it came

        with Client(front.port) as busy:
            server.script = slow
            busy.send("POST", CHAT, json.dumps(chat_body("takes longer than idle")).encode())
            assert busy.reply().status == 200


def test_nothing_of_a_request_is_logged(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("CANARY-PROMPT"), headers={"Authorization": "Bearer CANARY-KEY"})
    front.get("/v1/models?api_key=CANARY-QUERY")
    eventually(lambda: [line for line in front.logs() if line.get("path") == "/v1/models"])
    assert "CANARY" not in front.process.err + front.process.out
    assert "CANARY" not in json.dumps(front.get("/dashboard").json)
