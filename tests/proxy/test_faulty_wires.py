"""What a broken wire can do, at every byte of it: between us and the model server, and between a client and us.

Rows F2-F6, F13, F56, F58 of the fault list, which test_faults.py and the files it names have as single cases by a
scripted server; here the fault proxy breaks a real connection at one byte after the other.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import pytest

from tests.proxy.front import Client, Proxy, Reply, chat_body, proxy, raw_chat, settings
from tests.proxy.stub import CHAT, Script, Stub, Turn, chat, frames, stub
from tests.support.faulty import Faulty, faulty
from tests.support.wait import eventually

TEXT = "said as it was"
ENDS = ["reset", "close", "hole"]
STREAM = b"".join(frames(*TEXT.split(" ")))
EVERY = [
    pytest.param(41, id="sample"),
    pytest.param(1, id="every", marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
]


def answer(text: str) -> bytes:
    """What the scripted server sends, framing and all: the same bytes for the same text."""
    body = chat(text)
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )


def once(raw: bytes) -> Script:
    """These bytes, and the connection closed behind them: the next request comes over a new one, with its own plan."""

    def script(turn: Turn) -> None:
        turn.send(raw)
        turn.close()

    return script


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Faulty, Stub]]:
    """A proxy that reaches its model server through the fault proxy; nothing is stored, and silence ends soon."""
    limits = {
        "LLMPOD_IDLE_SECONDS": "0.3",
        "LLMPOD_FIRST_BYTE_SECONDS": "0.3",
        "LLMPOD_CACHE_TTL_SECONDS": "60",
    }
    cache = tmp_path_factory.mktemp("cache") / "c"
    with stub() as server, faulty(server.port) as wire:
        environ = {"PATH": "/usr/bin:/bin"} | settings(cache, wire.url, **limits)
        with proxy(environ) as front:
            yield front, wire, server


def ask(front: Proxy, text: str, *, stream: bool) -> Reply:
    more = {"stream": True} if stream else {}
    return front.ask(chat_body(text, **more))


@pytest.mark.parametrize("step", EVERY)
@pytest.mark.parametrize("end", ENDS)
def test_no_answer_that_broke_off_is_taken_for_a_whole_one(
    behind: tuple[Proxy, Faulty, Stub], end: str, step: int
) -> None:
    """A document: before its head is whole an error of ours, after it a cut; never stored."""
    front, wire, server = behind
    whole = answer(TEXT)
    server.script = once(whole)
    for at in range(0, len(whole), step if end != "hole" else step * 4):
        wire.plan(down={end: at})
        text = f"{end} {step} {at}"
        reply = ask(front, text, stream=False)
        begun = at >= len(whole) - len(chat(TEXT))
        assert reply.cut if reply.status == 200 else reply.status in (502, 504), (at, reply)
        assert begun or reply.status != 200
        if not reply.cut:
            assert reply.json["error"]["code"] in (
                "upstream_unreachable",
                "upstream_timeout",
                "upstream_invalid",
            )
        assert not stored(front, text)
    wire.plan()
    assert ask(front, "whole again", stream=False).body == chat(TEXT)


@pytest.mark.parametrize("step", EVERY)
@pytest.mark.parametrize("end", ENDS)
def test_no_stream_that_broke_off_ends_as_if_it_were_done(
    behind: tuple[Proxy, Faulty, Stub], end: str, step: int
) -> None:
    front, wire, server = behind
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    whole = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(STREAM), STREAM)
    server.script = once(whole)
    done = whole.index(b"data: [DONE]") + len(b"data: [DONE]\n\n")
    for at in range(0, done - 16, step if end != "hole" else step * 4):
        wire.plan(down={end: at})
        text = f"stream {end} {step} {at}"
        reply = ask(front, text, stream=True)
        if reply.status == 200:
            assert b"[DONE]" not in reply.body
            events = reply.body.split(b"data: ")
            assert "error" in json.loads(events[-1]), at
        else:
            assert reply.status in (502, 504)
        assert not stored(front, text)
    wire.plan()
    assert ask(front, "whole stream again", stream=True).body == STREAM


@pytest.mark.parametrize("step", EVERY)
def test_a_changed_byte_breaks_nothing_but_its_answer(behind: tuple[Proxy, Faulty, Stub], step: int) -> None:
    """TCP would not notice: whatever it makes of the answer, it is an answer, or an error that names the server."""
    front, wire, server = behind
    whole = answer(TEXT)
    server.script = once(whole)
    for at in range(0, len(whole), step):
        wire.plan(down={"corrupt": at})
        reply = ask(front, f"changed {step} {at}", stream=False)
        if reply.status != 200:
            assert reply.json["error"]["code"].startswith("upstream_"), (at, reply)
    wire.plan()
    assert ask(front, "unchanged", stream=False).body == chat(TEXT)


def stored(front: Proxy, text: str) -> bool:
    return front.ask(chat_body(text), headers={"Cache-Control": "only-if-cached"}).status == 200


@dataclass(frozen=True)
class Wired:
    """A proxy with a fault proxy on either side."""

    front: Proxy
    outer: Faulty
    inner: Faulty
    server: Stub

    def client(self) -> Client:
        return Client(self.outer.port)


@pytest.fixture(scope="module")
def _wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    cache = tmp_path_factory.mktemp("cache") / "c"
    with stub() as server, faulty(server.port) as inner:
        environ = {"PATH": "/usr/bin:/bin"} | settings(cache, inner.url)
        with proxy(environ) as front, faulty(front.port) as outer:
            yield Wired(front, outer, inner, server)


@pytest.fixture
def wired(_wired: Wired) -> Wired:
    _wired.outer.plan()
    _wired.inner.plan()
    _wired.server.turns.clear()
    _wired.server.script = lambda turn: turn.reply(chat(TEXT))
    return _wired


@pytest.mark.parametrize("step", EVERY)
@pytest.mark.parametrize("end", ["reset", "close"])
def test_half_a_request_reaches_no_model_server(wired: Wired, end: str, step: int) -> None:
    whole = raw_chat(f"half {end}")
    for at in range(0, len(whole), step):
        wired.outer.plan(up={end: at})
        # before the first byte: as early as in connect
        with suppress(ConnectionResetError) if at == 0 else nullcontext(), wired.client() as client:
            said = heard(client, whole)
            assert not said or said.startswith(b"HTTP/1.1 4"), (at, said)
    assert not wired.server.turns
    assert wired.front.ask(chat_body("half and whole")).status == 200


@pytest.mark.parametrize("step", EVERY)
def test_a_changed_byte_of_a_request_is_refused_or_served(wired: Wired, step: int) -> None:
    whole = raw_chat("changed")
    for at in range(0, len(whole), step):
        wired.outer.plan(up={"corrupt": at})
        with wired.client() as client:
            client.sock.sendall(whole)
            client.sock.shutdown(socket.SHUT_WR)
            said = heard(client)
        assert not said or said[9:10] in (b"2", b"4"), (at, said)


def test_a_client_that_is_cut_off_takes_the_call_along(wired: Wired) -> None:
    gone: list[bool] = []

    def endless(turn: Turn) -> None:
        turn.stream()
        turn.chunk(STREAM[:300])
        gone.append(turn.wait_gone())

    wired.server.script = endless
    wired.outer.plan(down={"reset": 400})
    with wired.client() as client:
        client.send("POST", CHAT, json.dumps(chat_body("cut off", stream=True)).encode())
        while heard(client):
            pass
        assert eventually(lambda: gone) == [True]


@pytest.mark.parametrize("plan", [{"drip": 0.0002}, {"rate": 8000.0}, {"delay": 0.1}], ids=str)
def test_wires_that_are_slow_change_nothing(wired: Wired, plan: dict[str, float]) -> None:
    wired.server.script = once(answer(TEXT))
    for wire in (wired.inner, wired.outer):
        wire.plan(up=plan, down=plan)
    with wired.client() as client:
        client.sock.sendall(raw_chat(f"slow {plan}"))
        reply = client.reply()
        assert (reply.cache, reply.body) == ("MISS", chat(TEXT))


def heard(client: Client, said: bytes = b"") -> bytes:
    """What comes next, if anything does."""
    try:
        client.sock.sendall(said)
        return client.sock.recv(65536)
    except ConnectionError:
        return b""
