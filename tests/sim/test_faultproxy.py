"""The fault proxy by itself: what it passes, how it breaks, and what it does not take for an order."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from llmpod.sim.faultproxy_plan import BadPlan, Plan
from tests.support.faulty import Faulty, faulty
from tests.support.process import PYTHON, run


@pytest.fixture
def echo() -> Iterator[socket.socket]:
    """Something that listens; what it accepts is the test's to use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


def pair(wire: Faulty, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(("127.0.0.1", wire.port), 10)
    server, _ = listener.accept()
    server.settimeout(10)
    return client, server


def everything(sock: socket.socket) -> bytes:
    got = b""
    while piece := sock.recv(65536):
        got += piece
    return got


def test_what_it_is_told_at_the_start_and_later(echo: socket.socket) -> None:
    with faulty(echo.getsockname()[1], "--down", "close=3,corrupt=1") as wire:
        client, server = pair(wire, echo)
        with client, server:
            server.sendall(b"abcdef")
            assert everything(client) == b"a" + bytes([ord("b") ^ 0x55]) + b"c"
            client.sendall(b"the other way goes on")
            client.shutdown(socket.SHUT_WR)
            assert everything(server) == b"the other way goes on"
        wire.plan(up={"reset": 2})
        client, server = pair(wire, echo)
        with client, server:
            client.sendall(b"xyz")
            with pytest.raises(ConnectionResetError):
                everything(client)
            with pytest.raises(ConnectionResetError):
                everything(server)
        wire.plan(down={"hole": 2})
        client, server = pair(wire, echo)
        with client, server:
            server.sendall(b"xyz")
            server.close()
            assert client.recv(2, socket.MSG_WAITALL) == b"xy"
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.recv(1)
        with urllib.request.urlopen(wire.control_url) as answer:
            assert json.load(answer) == {"connections": 3}


def test_where_nothing_listens_it_resets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        faulty(port) as wire,
        pytest.raises(ConnectionResetError),  # as early as in connect
        socket.create_connection(("127.0.0.1", wire.port), 10) as client,
    ):
        client.recv(1)


@pytest.mark.parametrize("text", ["x=1", "delay", "delay=", "delay=-1", "reset=1.5", "rate=nan", "hole=inf"])
def test_what_is_no_plan(text: str) -> None:
    with pytest.raises(BadPlan):
        Plan.parse(text)
    assert run([PYTHON, "-m", "llmpod.sim.faultproxy", "--to", "127.0.0.1:1", "--up", text]).code == 2


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"sideways": {}}', b'{"up": {"delay": true}}', b'{"up": []}']
)
def test_what_is_no_order(echo: socket.socket, body: bytes) -> None:
    with faulty(echo.getsockname()[1]) as wire:
        request = urllib.request.Request(wire.control_url, body, method="PUT")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        assert caught.value.code == 400
        caught.value.close()
