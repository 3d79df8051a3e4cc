"""The end: a hundred streams under way, clients that read nothing, and how fast the door closes."""

import json
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.proxy.front import Client, chat_body, proxy, raw_chat, settings
from tests.proxy.stub import Turn, frames, halfway, stub
from tests.support.wait import eventually

STREAMS = 100
GRACE = 2.0


@pytest.mark.parametrize(
    ("shut", "over"), [(1.0, 3.0), pytest.param(0.1, 1.0, marks=pytest.mark.long)], ids=["busy", "bar"]
)
def test_no_stream_is_torn_without_a_word(
    cache_dir: Path, env: dict[str, str], shut: float, over: float
) -> None:
    """Half of them end within the grace, byte for byte; the others are told; the process keeps to its time.

    ``shut`` seconds to close the door, ``over`` seconds over the grace: as the bar says, or on a busy machine.
    """
    go = threading.Event()

    def script(turn: Turn) -> None:
        turn.stream()
        turn.chunk(frames("a")[0])
        if "short" in turn.json["messages"][-1]["content"]:
            go.wait(10)
            turn.chunk(b"".join(frames("a")[1:]))
            turn.last()
        else:
            turn.wait_gone(within=20)

    environ = env | settings(cache_dir, LLMPOD_DRAIN_SECONDS=str(GRACE))
    with stub() as server, proxy(environ | {"RUNPOD_ENDPOINT": server.url}) as front:
        server.script = script
        clients = [Client(front.port, timeout=20) for _ in range(STREAMS)]
        for number, client in enumerate(clients):
            client.sock.sendall(raw_chat(f"{'short' if number % 2 else 'long'} {number}", stream=True))
        replies = [client.open_reply() for client in clients]
        for reply in replies:
            assert reply.read1(65536) == frames("a")[0]
        began = time.monotonic()
        front.process.signal(signal.SIGTERM)
        eventually(lambda: _refused(front.port), every=0.005)
        closed = time.monotonic() - began
        go.set()
        rests = [client.rest(reply) for client, reply in zip(clients, replies, strict=True)]
        assert front.process.wait(within=20) == 0
        ended = time.monotonic() - began
    for number, rest in enumerate(rests):
        if number % 2:
            assert (rest.body, rest.cut) == (b"".join(frames("a")[1:]), False)
        else:
            assert rest.cut
            assert b'data: {"error"' in rest.body
            assert b"being stopped" in rest.body
    print(json.dumps({"bar": "G15", "closed": closed, "ended": ended - GRACE}))  # noqa: T201 - for the long run
    assert closed < shut
    assert GRACE - 0.1 < ended < GRACE + over
    for client in clients:
        client.close()


def test_who_reads_nothing_does_not_hold_up_the_end(cache_dir: Path, env: dict[str, str]) -> None:
    def script(turn: Turn) -> None:
        turn.stream()
        for _ in range(1000):
            turn.chunk(b"data: " + b"x" * 60_000 + b"\n\n")

    environ = env | settings(cache_dir, LLMPOD_DRAIN_SECONDS="1")
    with stub() as server, proxy(environ | {"RUNPOD_ENDPOINT": server.url}) as front:
        server.script = script
        with Client(front.port) as client:
            client.sock.sendall(raw_chat("nothing", stream=True, lines="cache-control: no-store\r\n"))
            server.wait_turns(1)
            began = time.monotonic()
            assert front.process.stop() == 0
            assert time.monotonic() - began < 5


def test_a_door_that_closes_says_so_to_who_is_inside(cache_dir: Path, env: dict[str, str]) -> None:
    """A request that waits behind an answer under way is still served; readiness is over at once."""
    go = threading.Event()

    with stub() as server, proxy(env | settings(cache_dir, server.url)) as front, front.client() as client:
        server.script = halfway(go)
        client.sock.sendall(raw_chat("inside", stream=True))
        reply = client.open_reply()
        client.sock.sendall(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert reply.read1(65536)
        front.process.signal(signal.SIGTERM)
        eventually(lambda: _refused(front.port))
        go.set()
        assert client.rest(reply).cut is False
        ready = client.reply()
        assert (ready.status, ready.headers["connection"]) == (503, "close")
        assert "stopped" in ready.json["reason"]
        assert front.process.wait() == 0


def test_sighup_ends_nothing(cache_dir: Path, env: dict[str, str]) -> None:
    with stub() as server, proxy(env | settings(cache_dir, server.url)) as front:
        assert front.get("/livez").status == 200  # it serves, so it hears signals
        front.process.signal(signal.SIGHUP)
        eventually(lambda: [line for line in front.logs() if line["event"] == "reload"])
        assert front.ask(chat_body("still here")).status == 200


def _refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionError:
        return True
    return False
