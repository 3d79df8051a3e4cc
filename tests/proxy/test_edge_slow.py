"""Clients that take too long, take nothing or are too many: each is ended in its time, the others are served."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy.front import Client, Proxy, chat_body, proxy, raw_chat, settings
from tests.proxy.stub import CHAT, Stub, Turn, chat, stub
from tests.support.wait import eventually

BODY = json.dumps(chat_body("fast")).encode()
HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n".encode()
SHORT = {
    "LLMPOD_HEADER_SECONDS": "1",
    "LLMPOD_BODY_IDLE_SECONDS": "1.5",
    "LLMPOD_KEEP_ALIVE_SECONDS": "1",
    "LLMPOD_STALL_SECONDS": "1",
}


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Stub]]:
    """A proxy with short deadlines."""
    with stub() as server:
        environ = settings(tmp_path_factory.mktemp("cache") / "c", server.url, LOG_LEVEL="INFO", **SHORT)
        with proxy({"PATH": "/usr/bin:/bin"} | environ) as front:
            yield front, server


def drip(client: Client, first: bytes, piece: bytes, *, every: float) -> tuple[int, float]:
    """Send ``first``, then ``piece`` again and again; the status of the answer, and after how many seconds it came."""
    began = time.monotonic()
    client.sock.sendall(first)
    client.sock.settimeout(every)
    for _ in range(400):
        try:
            client.sock.recv(1, socket.MSG_PEEK)
            break
        except TimeoutError:
            client.sock.sendall(piece)
    client.sock.settimeout(10)
    return client.reply().status, time.monotonic() - began


@pytest.mark.parametrize(
    ("first", "piece", "every"),
    [
        (b"POST /v1/x HTTP/1.1\r\n", b"a: b\r\n", 0.2),
        (b"P", b"", 0.2),
        (HEAD + b"content-length: 1000000\r\n\r\n", b"", 0.2),
        (HEAD + b"content-length: 1000000\r\n\r\n", b"x", 0.1),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 0.1),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n1;", b"x", 0.1),
    ],
    ids=[
        "dripping header",
        "one byte",
        "silent body",
        "dripping body",
        "dripping chunks",
        "dripping extension",
    ],
)
def test_who_drips_is_told_and_ended(
    hurried: tuple[Proxy, Stub], first: bytes, piece: bytes, every: float
) -> None:
    front, server = hurried
    server.turns.clear()
    with Client(front.port) as client:
        status, after = drip(client, first, piece, every=every)
        assert (status, 0.4 < after < 8) == (408, True)
        assert client.sock.recv(1) == b""
    assert not server.turns


def test_a_body_that_is_slow_but_steady_is_taken(hurried: tuple[Proxy, Stub]) -> None:
    """Three seconds in pieces, twice the idle limit, at more than a kilobyte a second."""
    front, _ = hurried
    body = json.dumps(chat_body("steady " + "x" * 30_000)).encode()
    with Client(front.port) as client:
        client.sock.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 2_000):
            client.sock.sendall(body[at : at + 2_000])
            threading.Event().wait(0.2)
        assert client.reply().status == 200


def _big(turn: Turn) -> None:
    turn.stream()
    event = b"data: " + b"x" * 65_000 + b"\n\n"
    for _ in range(4_000):
        turn.chunk(event)


def _reader(port: int) -> Client:
    """A client with little room for what it is sent."""
    client = Client(port)
    client.sock.close()
    client.sock = socket.socket()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sock.settimeout(10)
    client.sock.connect(("127.0.0.1", port))
    client.fresh_reader()
    return client


def _resident(front: Proxy) -> int:
    with open(f"/proc/{front.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


@pytest.mark.parametrize("lines", ["", "cache-control: no-store\r\n"], ids=["to be stored", "not stored"])
def test_who_never_reads_costs_little_and_is_ended(hurried: tuple[Proxy, Stub], lines: str) -> None:
    front, server = hurried
    front.ask(BODY)
    server.turns.clear()
    server.script = _big
    before, gone = _resident(front), front.metrics()["client_gone_total"]
    readers = [_reader(front.port) for _ in range(40)]
    for number, reader in enumerate(readers):
        reader.sock.sendall(raw_chat(f"never read {number}", stream=True, lines=lines))
    server.wait_turns(len(readers))
    most = 0
    for _ in range(20):
        most = max(most, _resident(front))
        assert front.ask(BODY).cache == "HIT"
    assert most - before < len(readers) * 2**20
    eventually(lambda: front.metrics()["client_gone_total"] >= gone + len(readers), within=20)
    for reader in readers:
        reader.close()


def test_large_pieces_come_whole(hurried: tuple[Proxy, Stub]) -> None:
    """Pieces that are not copied, small ones between them, and the end: each in a frame of its own."""
    front, server = hurried
    events = [
        b"data: " + bytes([65 + n]) * size + b"\n\n" for n, size in enumerate([300_000, 10, 70_000, 9] * 2)
    ]

    def script(turn: Turn) -> None:
        turn.stream()
        for event in events:
            turn.chunk(event)
        turn.chunk(b"data: [DONE]\n\n")
        turn.last()

    server.script = script
    with Client(front.port) as client:
        for number in range(2):
            client.sock.sendall(
                raw_chat(f"large pieces {number}", stream=True, lines="cache-control: no-store\r\n")
            )
            reply = client.reply()
            assert (reply.body, reply.cut) == (b"".join([*events, b"data: [DONE]\n\n"]), False)


def test_who_reads_slowly_is_kept(hurried: tuple[Proxy, Stub]) -> None:
    front, server = hurried

    def some(turn: Turn) -> None:
        turn.reply(chat("y" * 3_000_000))

    server.script = some
    with Client(front.port) as client:
        client.sock.sendall(raw_chat("slow reader"))
        began, got = time.monotonic(), b""
        while time.monotonic() - began < 3:
            got += client.sock.recv(30_000)
            threading.Event().wait(0.1)
        while piece := client.sock.recv(2**20):
            got += piece
            if got.endswith(b"}}"):
                break
    assert chat("y" * 3_000_000) in got


def test_connections_are_capped(cache_dir: Path, env: dict[str, str]) -> None:
    with stub() as server, proxy(env | settings(cache_dir, server.url, LLMPOD_MAX_CONNECTIONS="5")) as front:
        inside = [Client(front.port) for _ in range(5)]
        for client in inside:
            client.send("GET", "/livez")
            assert client.reply().status == 200
        for _ in range(20):
            with Client(front.port) as late:
                reply = late.reply()
                assert (reply.status, reply.json["error"]["code"]) == (503, "overloaded")
                assert int(reply.headers["retry-after"]) >= 1
        assert 1 <= len([line for line in front.logs() if line["event"] == "too_many_connections"]) <= 10
        inside.pop().close()
        eventually(lambda: _status(front) == 200)
        for client in inside:
            client.send("POST", CHAT, BODY)
            assert client.reply().status == 200
            client.close()


def _status(front: Proxy) -> int:
    with Client(front.port) as client:
        client.send("GET", "/livez")
        return client.reply().status


def _own_address() -> str:
    """An address of this machine that is not a loopback one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def test_connections_of_one_source_are_capped(cache_dir: Path, env: dict[str, str]) -> None:
    address = _own_address()
    if not address or address.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    more = {
        "LLMPOD_MAX_CONNECTIONS_PER_SOURCE": "3",
        "LLMPOD_HOST": address,
        "LLMPOD_ALLOW_INSECURE_BIND": "1",
    }
    with stub() as server, proxy(env | settings(cache_dir, server.url, **more)) as front:
        socks = [socket.create_connection((address, front.port), 10) for _ in range(4)]
        ask = f"GET /livez HTTP/1.1\r\nhost: {address}:{front.port}\r\n\r\n".encode()
        for sock in socks[:3]:
            sock.sendall(ask)
            assert sock.recv(12) == b"HTTP/1.1 200"
        assert socks[3].recv(12) == b"HTTP/1.1 503"
        for sock in socks:
            sock.close()
