"""The corpus: nothing that must be refused is accepted or reaches a model server. (By chance: tests/fuzz.)"""

import re
import socket

import pytest

from tests.proxy.corpus_heads import ACCEPTED, ENDLESS, REFUSED
from tests.proxy.front import Client, Proxy
from tests.proxy.stub import Stub


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_what_must_be_refused_is(front: Proxy, server: Stub, raw: bytes) -> None:
    """In one piece, and in two: no cut makes it acceptable."""
    waits = {"chunk shorter than said", "CR behind the line", "chunk size CR", "chunk size huge"}
    for cut in (0, len(raw) // 2):
        with socket.create_connection(("127.0.0.1", front.port), 10) as sock:
            sock.sendall(raw[:cut])
            try:
                sock.sendall(raw[cut:])
                if raw in [REFUSED[name] for name in waits]:
                    sock.shutdown(socket.SHUT_WR)  # the rest of the request would still have to come
                heard = sock.recv(65536)
            except ConnectionError:
                heard = b""
        assert not heard or re.match(rb"HTTP/1\.1 4\d\d ", heard), heard[:200]
    assert not server.turns


def test_the_corpus_is_large_enough() -> None:
    assert len(REFUSED) >= 100
    assert len(set(REFUSED.values())) == len(REFUSED)


@pytest.mark.parametrize("raw", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_must_be_accepted_is(front: Proxy, raw: bytes) -> None:
    with Client(front.port) as client:
        client.sock.sendall(raw)
        reply = client.reply()
        assert reply.status == 200
        assert b"corpus" in reply.body


@pytest.mark.parametrize(("begin", "rest"), ENDLESS.values(), ids=ENDLESS.keys())
def test_what_never_ends_is_cut(front: Proxy, server: Stub, begin: bytes, rest: bytes) -> None:
    """Within 64 KiB of what is no body, and what the sockets hold."""
    with Client(front.port) as client:
        try:
            client.sock.sendall(begin + rest * 200)
            assert client.reply().status in (400, 414, 431)
        except ConnectionError:
            pass  # cut before it had read all: the answer is lost with what was still under way
    assert not server.turns


def test_a_trailer_brings_no_field_past_the_gate(front: Proxy, server: Stub) -> None:
    raw = ACCEPTED["chunks"].replace(b"corpus", b"trailed").removesuffix(b"\r\n")
    raw = raw.replace(b"\r\nContent-Type", b"\r\nCache-Control: no-store\r\nContent-Type").replace(
        b"Transfer", b"Authorization: Bearer mine\r\nTransfer"
    )
    size = raw.split(b"\r\n\r\n", 1)[1].split(b"\r\n", 1)[0]
    raw = raw.replace(b"\r\n\r\n" + size, b"\r\n\r\n%x" % (int(size, 16) + len("trailed") - len("corpus")), 1)
    with Client(front.port) as client:
        client.sock.sendall(raw + b"Authorization: Bearer stolen\r\nOpenAI-Beta: x\r\n\r\n")
        assert client.reply().status == 200
    headers = server.turns[0].headers
    assert headers["authorization"] == "Bearer mine"
    assert "openai-beta" not in headers
