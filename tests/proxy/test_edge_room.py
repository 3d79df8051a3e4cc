"""The memory of all bodies together is bounded: who is slow goes, who is quick is served."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from llmpod.proxy.body import Body
from llmpod.proxy.room import FREE, Room
from llmpod.proxy.sweep import LOWEST_RATE, Deadlines
from tests.proxy.front import Client, Proxy, chat_body, proxy, raw_chat, settings
from tests.proxy.stub import Stub, Turn, chat, stub
from tests.support.wait import eventually

MIB = 2**20
MOST = 40 * MIB  # a body may have 32
# a file, which nobody parses
AUDIO, KIND = "/v1/audio/transcriptions", "multipart/form-data; boundary=x"
HEAD = f"POST {AUDIO} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {KIND}\r\n".encode()


@contextmanager
def narrow(cache: Path, env: dict[str, str]) -> Iterator[tuple[Proxy, Stub]]:
    environ = settings(cache, LOG_LEVEL="INFO", LLMPOD_MAX_BODIES_BYTES=str(MOST))
    with stub() as server, proxy(env | environ | {"RUNPOD_ENDPOINT": server.url}) as front:
        front.ask(chat_body("warm"))
        yield front, server


def resident(front: Proxy, what: str = "VmRSS") -> int:
    with open(f"/proc/{front.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(what))


def status(front: Proxy, size: int) -> int:
    """Of a whole request with so many bytes."""
    return front.ask(b" " * size, path=AUDIO, headers={"Content-Type": KIND}).status


def unfinished(front: Proxy, size: int) -> Client:
    """A client that has sent all of a body but its end; it may hear no before that."""
    client = Client(front.port, timeout=20)
    client.sock.sendall(HEAD + b"content-length: %d\r\n\r\n" % (size + 1))
    with suppress(BrokenPipeError, ConnectionResetError):
        client.sock.sendall(b" " * size)
    return client


def test_who_holds_what_he_does_not_finish_makes_room(cache_dir: Path, env: dict[str, str]) -> None:
    with narrow(cache_dir, env) as (front, server):
        before = resident(front)
        held = [unfinished(front, 10 * MIB) for _ in range(12)]
        assert resident(front, "VmHWM") - before < MOST + 40 * MIB
        assert status(front, 5 * MIB) == 200
        assert front.ask(chat_body("small")).status == 200
        refused = [client.reply() for client in held[:9]]
        assert {(reply.status, reply.json["error"]["code"]) for reply in refused} == {(503, "overloaded")}
        assert {reply.headers["retry-after"] for reply in refused} == {"1"}
        for client in held:
            client.close()
        assert status(front, 20 * MIB) == 200  # what they held is free again
        assert len(server.turns) == 4


def test_bodies_count_until_they_are_answered(cache_dir: Path, env: dict[str, str]) -> None:
    """Three that wait for the model server fill the room: the fourth is sent away, small ones are not."""
    go = threading.Event()

    def script(turn: Turn) -> None:
        if len(turn.body) > FREE:
            go.wait(20)
        turn.reply(chat("done"))

    with narrow(cache_dir, env) as (front, server):
        server.script = script
        server.turns.clear()
        waiting = [Client(front.port, timeout=20) for _ in range(3)]
        for number, client in enumerate(waiting):
            body = b" " * (12 * MIB + number)
            client.sock.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        server.wait_turns(3)
        late = unfinished(front, 12 * MIB)
        assert late.reply().status == 503
        late.close()
        assert front.ask(chat_body("small")).status == 200
        go.set()
        assert [client.reply().status for client in waiting] == [200] * 3
        for client in waiting:
            client.close()
        assert eventually(lambda: status(front, 30 * MIB) == 200)


def test_the_same_header_again_counts_too(cache_dir: Path, env: dict[str, str]) -> None:
    """A keep-alive client whose large bodies come in one piece each: counted, and free again each time."""
    with narrow(cache_dir, env) as (front, _), Client(front.port) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
        for _ in range(MOST // 100_000 + 20):
            client.sock.sendall(raw_chat("x" * 100_000))
            assert client.reply().status == 200


class Somebody:
    """A guest of a room."""

    def __init__(self) -> None:
        self.told = 0

    def crowded_out(self) -> None:
        self.told += 1


def test_the_oldest_that_is_coming_goes() -> None:
    room = Room(100)
    arrived, slow, quick, last = (Somebody() for _ in range(4))
    assert room.take(arrived, 50)
    room.arrived(arrived)
    assert room.take(slow, 30)
    assert room.take(quick, 20)
    assert room.take(slow, 0)
    assert room.take(last, 30)
    assert [guest.told for guest in (arrived, slow, quick, last)] == [0, 1, 0, 0]
    assert not room.take(last, 51)  # quick goes, and it is still too much
    assert (quick.told, last.told, room.used, room.guests) == (1, 0, 50, 1)
    room.free(arrived, but=FREE + 1)
    assert room.used == FREE + 1
    room.free(arrived)
    room.free(arrived)
    assert (room.used, room.guests) == (0, 0)


@pytest.mark.parametrize(("rate", "drips"), [(LOWEST_RATE // 2, True), (LOWEST_RATE * 2, False)])
def test_what_was_quick_once_may_not_drip_for_ever(rate: int, *, drips: bool) -> None:
    """Megabytes at once, then hardly anything: what came before does not count for hours."""
    deadlines, body, found = Deadlines(header=10, body_idle=30, idle=75, stall=60), Body(), False
    body.add(b"x" * 8 * MIB)
    for second in range(100, 300):
        body.add(b"x" * rate)
        found = found or body.drips(100.0, float(second), deadlines)
    assert found is drips
