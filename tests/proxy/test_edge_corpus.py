"""The corpus: nothing that must be refused is accepted or reaches a model server; and what comes by chance."""

import re
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.proxy.corpus_heads import ACCEPTED, ENDLESS, REFUSED, mutants
from tests.proxy.front import Client, Proxy
from tests.proxy.stub import Stub, chat

FUZZ_SEED = 20_261_121


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


def _fuzz(front: Proxy, inputs: Iterator[bytes], *, workers: int = 4) -> tuple[int, list[bytes]]:
    """Send all; returns how many were answered and those that were answered with a 5xx or not within 2 s."""
    lock, bad, answered = threading.Lock(), list[bytes](), 0

    def work() -> None:
        nonlocal answered
        while True:
            with lock:
                raw = next(inputs, None)
            if raw is None:
                return
            with socket.create_connection(("127.0.0.1", front.port), 10) as sock:
                sock.settimeout(2)
                try:
                    sock.sendall(raw)
                    sock.shutdown(socket.SHUT_WR)
                    heard = sock.recv(65536)
                except TimeoutError:
                    heard = b"HTTP/1.1 599 "
                except ConnectionError:
                    heard = b""
            with lock:
                answered += bool(heard)
                if b"HTTP/1.1 5" in heard or b"Traceback" in heard:
                    bad.append(raw)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answered, bad


def _resident(front: Proxy) -> int:
    with open(f"/proc/{front.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


@pytest.mark.parametrize(
    "count", [5_000, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])]
)
def test_faults_by_chance(front: Proxy, server: Stub, count: int) -> None:
    """No answer that blames ourselves, no hang, no growth; ``proxy()`` fails the test for a trace in the log."""
    server.script = lambda turn: turn.reply(chat("whatever it was"))
    _fuzz(front, mutants(500, seed=1))
    before = _resident(front)
    answered, bad = _fuzz(front, mutants(count, seed=FUZZ_SEED))
    assert not bad, bad[:3]
    assert answered > count // 3
    assert _resident(front) - before < 16 * 2**20
    assert front.get("/livez").status == 200
