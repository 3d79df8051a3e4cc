"""F11: a model server that says 429 is left alone for as long as it says, then asked little by little.

That the 429 itself reaches the client unchanged is in test_faults.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llmpod.proxy.pacer import PAUSE_SECONDS, pause_of
from tests.proxy.front import Proxy, Reply, chat_body, proxy, settings
from tests.proxy.stub import CHAT, Stub, Turn, chat, plain, stub
from tests.support.wait import eventually

Say = Callable[..., dict[str, Any]]
NOW = 1_750_000_000.0


class Busy:
    """Says 429 to the first ``refusals`` turns, answers the others when ``go`` allows it."""

    def __init__(self, after: str = "retry-after: 1", refusals: int = 1) -> None:
        self.go = threading.Semaphore(0)
        self.times: list[float] = []
        self._after = after
        self._refusals = refusals
        self._lock = threading.Lock()

    def __call__(self, turn: Turn) -> None:
        with self._lock:
            self.times.append(time.monotonic())
            refused = len(self.times) <= self._refusals
        if refused:
            turn.reply(b'{"error":{"message":"slow down"}}', self._after, status="429 Too Many Requests")
            return
        assert self.go.acquire(timeout=20)
        turn.reply(chat())


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Say:
    """Makes bodies for a model of this test's own: a line is per model, and the tests share a proxy."""
    return partial(chat_body, model=request.node.name)


@contextmanager
def asked(front: Proxy, bodies: Iterable[dict[str, Any]]) -> Iterator[list[Future[Reply]]]:
    """Requests that are under way at the same time."""
    with ThreadPoolExecutor(8) as pool:
        yield [pool.submit(front.ask, body) for body in bodies]


def waiting(front: Proxy, count: int) -> Callable[[], bool]:
    return lambda: front.metrics()["upstream_waiting"] == count


def test_f11_the_others_wait_as_long_as_the_server_says_and_then_go_little_by_little(
    cache_dir: Path, env: dict[str, str], say: Say
) -> None:
    with stub() as server, proxy(env | settings(cache_dir, server.url)) as front:
        server.script = busy = Busy()
        assert front.ask(say("the first")).status == 429
        with asked(front, [say(f"question {n}") for n in range(8)]) as replies:
            eventually(waiting(front, 7), within=20)  # after the pause one has gone out
            eventually(lambda: len(busy.times) == 2)
            assert busy.times[1] - busy.times[0] >= 0.99
            busy.go.release()
            eventually(waiting(front, 5), within=20)  # it was accepted: two
            eventually(lambda: len(busy.times) == 4)
            for _ in replies:
                busy.go.release()
            assert [reply.result().status for reply in replies] == [200] * 8
        assert len(busy.times) == 9
        server.script = plain
        assert front.ask(say("afterwards")).status == 200


def test_f11_who_would_wait_too_long_hears_how_long_at_once(front: Proxy, server: Stub, say: Say) -> None:
    server.script = Busy("retry-after: 120")
    assert front.ask(say("the first")).status == 429
    for more in ({}, {"stream": True}):
        reply = front.ask(say("another", **more))
        assert (reply.status, reply.json["error"]["code"]) == (429, "upstream_busy")
        assert 100 <= int(reply.headers["retry-after"]) <= 120
    assert len(server.turns) == 1


def test_f11_stored_answers_and_other_models_do_not_wait(front: Proxy, server: Stub, say: Say) -> None:
    assert front.ask(say("known")).status == 200
    server.script = Busy("retry-after: 120")
    assert front.ask(say("the first")).status == 429
    assert front.ask(say("known")).headers["x-cache"].startswith("HIT")
    server.script = plain
    assert front.ask(say("new", model="another")).status == 200
    assert front.ask(say("new")).status == 429


def test_f11_credentials_wait_apart(front: Proxy, server: Stub, say: Say) -> None:
    first, second = ({"Authorization": f"Bearer sk-{n}"} for n in "ab")
    server.script = Busy("retry-after: 120")
    assert front.ask(say("the first"), headers=first).status == 429
    server.script = plain
    assert front.ask(say("x"), headers=first).status == 429
    assert front.ask(say("x"), headers=second).status == 200


def test_f11_the_line_is_bounded_in_length_and_time(cache_dir: Path, env: dict[str, str], say: Say) -> None:
    limits = {"LLMPOD_MAX_QUEUE": "1", "LLMPOD_QUEUE_SECONDS": "2"}
    with stub() as server, proxy(env | settings(cache_dir, server.url) | limits) as front:
        server.script = Busy("retry-after: 1", refusals=2)
        assert front.ask(say("the first")).status == 429
        with asked(front, [say("waits")]) as (first,):
            eventually(waiting(front, 1))
            with asked(front, [say("too many")]) as (second,):
                assert second.result().json["error"]["code"] == "upstream_busy"
                assert first.result().status == 429  # its turn came, and the server said it again
                assert b"slow down" in first.result().body
        server.script = Busy("retry-after: 1", refusals=99)
        assert front.ask(say("again")).status == 429


def test_f11_each_line_moves_when_its_pause_is_over(front: Proxy, server: Stub, say: Say) -> None:
    """Found by a review: the loop counts in whole milliseconds, and a line that woke half of one early slept on."""
    seen: set[str] = set()

    def script(turn: Turn) -> None:
        if (model := turn.json["model"]) in seen:
            turn.reply(chat())
            return
        seen.add(model)
        turn.reply(b"{}", "retry-after-ms: 1500.4", status="429 Too Many Requests")

    server.script = script
    models = [say("x")["model"] + str(n) for n in range(16)]
    for text, status in (("first", 429), ("second", 200)):
        with ThreadPoolExecutor(16) as pool:
            replies = pool.map(lambda model: front.ask(chat_body(text, model=model)), models)  # noqa: B023
            assert [reply.status for reply in replies] == [status] * 16


def test_f11_patience_ends(cache_dir: Path, env: dict[str, str], say: Say) -> None:
    """The one before it is worked on for longer than this one may wait."""
    with (
        stub() as server,
        proxy(env | settings(cache_dir, server.url) | {"LLMPOD_QUEUE_SECONDS": "2"}) as front,
    ):
        server.script = busy = Busy()
        assert front.ask(say("the first")).status == 429
        with asked(front, [say("one"), say("two")]) as replies:
            eventually(lambda: any(reply.done() for reply in replies), within=20)
            busy.go.release()
            assert sorted(reply.result().status for reply in replies) == [200, 429]
        assert len(busy.times) == 2


def test_f11_nothing_goes_out_for_who_has_left(front: Proxy, server: Stub, say: Say) -> None:
    server.script = busy = Busy("retry-after: 4")
    assert front.ask(say("the first")).status == 429
    with front.client() as client:
        client.send("POST", CHAT, json.dumps(say("leaves")).encode())
        eventually(waiting(front, 1))
    eventually(waiting(front, 0))
    busy.go.release()
    assert front.ask(say("stays")).status == 200
    assert [turn.json["messages"][0]["content"] for turn in server.turns] == ["the first", "stays"]


def test_f11_streams_hear_that_they_wait(cache_dir: Path, env: dict[str, str], say: Say) -> None:
    with (
        stub() as server,
        proxy(env | settings(cache_dir, server.url) | {"KEEPALIVE_SECONDS": "0.3"}) as front,
    ):
        server.script = Busy("retry-after: 2")
        assert front.ask(say("the first")).status == 429
        server.script = plain
        reply = front.ask(say("waits", stream=True))
        assert reply.body.startswith(b": keepalive\n\n")
        assert reply.body.rstrip().endswith(b"data: [DONE]")


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({b"retry-after": b"7"}, 7),
        ({b"retry-after": b"0"}, 0),
        ({b"retry-after": b"8", b"retry-after-ms": b"7500"}, 7.5),
        ({b"retry-after": b"Sun, 15 Jun 2025 15:06:45 GMT"}, 5),
        ({b"retry-after": b"Sun, 15 Jun 2025 15:06:35 GMT"}, 0),
        *(({b"retry-after": odd}, PAUSE_SECONDS) for odd in (b"", b"-1", b"nan", b"inf", b"soon", b"\xff")),
        ({}, PAUSE_SECONDS),
    ],
)
def test_the_pause_that_a_server_asks_for(fields: dict[bytes, bytes], seconds: float) -> None:
    assert pause_of(list(fields.items()), now=NOW) == pytest.approx(seconds)
