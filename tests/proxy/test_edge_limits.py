"""Limits: by the minute, by the day, at once; who is over them is told when to come back, the others are served."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from llmpod.config import KEYS_FILE, ProxySettings
from llmpod.errors import LlmpodError, Overloaded
from llmpod.observe import open_log
from llmpod.proxy.accounts import Accounts
from llmpod.proxy.ask import Ask
from llmpod.proxy.limits import Limiter
from llmpod.proxy.meter import Meter
from llmpod.proxy.slots import Place, Slots
from tests.proxy.front import Client, Proxy, chat_body, proxy, raw_chat, settings
from tests.proxy.keys import KEYS, call, entry, write_keys
from tests.proxy.stub import CHAT, Stub, Turn, chat, frames, plain, stub
from tests.support.wait import eventually


def by(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[key]}"}


@contextmanager
def limited(folder: Path, env: dict[str, str], **more: str) -> Iterator[tuple[Proxy, Stub]]:
    with stub() as server, proxy(env | settings(folder, server.url, **more)) as front:
        yield front, server


def test_requests_by_the_minute(cache_dir: Path, env: dict[str, str]) -> None:
    """The wait that is named is right: before it is over there is none, after it there is one."""
    with limited(cache_dir, env, LLMPOD_REQUESTS_PER_MINUTE="30") as (front, server):
        began = time.monotonic()
        with front.client() as client:
            replies = []
            for _ in range(40):
                client.send("POST", CHAT, b'{"model":"m","messages":[{"role":"user","content":"x"}]}')
                replies.append(client.reply())
        spent = time.monotonic() - began
        served = [reply for reply in replies if reply.status == 200]
        assert 30 <= len(served) <= 30 + spent / 2 + 1
        refused = replies[-1]
        assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
        assert refused.headers["retry-after"] in ("1", "2")
        assert len(server.turns) == 1
        eventually(lambda: call(front, CHAT, {}).status == 200, every=2.1, within=20)
        assert front.get("/livez").status == 200  # supervisors are not counted


def test_each_key_has_limits_of_its_own(tmp_path: Path, env: dict[str, str]) -> None:
    path = tmp_path / KEYS_FILE
    write_keys(
        path,
        entry("infer", requests_per_minute=2),
        entry("second", tokens_per_minute=7),
        entry("coder", requests_per_day=3),
        entry("admin", tokens_per_day=4),
    )
    more = {"LLMPOD_AUTH": "keys", "LLMPOD_KEYS_FILE": str(path)}
    with limited(tmp_path / "c", env, **more) as (front, _):
        got = {
            who: [call(front, CHAT, by(who), f"{who} {n}") for n in range(5)]
            for who in ("infer", "second", "coder", "admin")
        }
    statuses = {who: [reply.status for reply in replies] for who, replies in got.items()}
    # an answer of the stub says that it took 3 tokens; a bucket may be overdrawn by the last one
    assert statuses["infer"] == [200, 200, 429, 429, 429]
    assert statuses["second"][:4] == [200, 200, 200, 429]
    assert statuses["coder"] == [200, 200, 200, 429, 429]
    assert statuses["admin"] == [200, 200, 429, 429, 429]
    assert 20 <= int(got["infer"][2].headers["retry-after"]) <= 30
    assert 1 <= int(got["coder"][3].headers["retry-after"]) <= 24 * 3600
    assert "today" in got["admin"][2].json["error"]["message"]


def test_hits_take_no_tokens(cache_dir: Path, env: dict[str, str]) -> None:
    with limited(cache_dir, env, LLMPOD_TOKENS_PER_MINUTE="8") as (front, _):
        assert [call(front, CHAT, {}, "same").status for _ in range(8)] == [200] * 8
        assert [call(front, CHAT, {}, f"other {n}").status for n in range(4)] == [200, 200, 429, 429]


@pytest.mark.parametrize("usage", ["asked", "always"])
def test_a_stream_takes_the_tokens_it_has(cache_dir: Path, env: dict[str, str], usage: str) -> None:
    """Said by the server or not, told to the client or not: never as many as its bytes would have as plain text."""

    def forty(turn: Turn) -> None:
        turn.stream()
        for frame in frames(*["word"] * 40, usage=b"include_usage" in turn.body):
            turn.chunk(frame)
        turn.last()

    with limited(cache_dir, env, LLMPOD_TOKENS_PER_MINUTE="200", UPSTREAM_USAGE=usage) as (front, server):
        server.script = forty
        replies = [front.ask(chat_body(f"stream {n}", stream=True)) for n in range(7)]
        served = [reply.status for reply in replies].count(200)
        # as said: 3 tokens an answer; else one an event, and a few for the question
        assert served == 7 if usage == "always" else served in (3, 4, 5)
        assert b'"usage"' not in replies[0].body


def test_a_document_that_is_turned_into_a_stream_counts_as_the_server_said() -> None:
    meter = Meter()
    meter.hear(chat("x" * 8000))
    meter.see(b"".join(frames("x" * 8000)))
    assert meter.tokens(100).total == 3


def test_errors_and_lists_take_no_tokens(cache_dir: Path, env: dict[str, str]) -> None:
    with limited(cache_dir, env, LLMPOD_TOKENS_PER_MINUTE="100") as (front, server):
        server.script = lambda turn: turn.reply(b'{"error": {"message": "x"}}', status="400 Bad Request")
        assert [front.ask(chat_body(f"{n}" * 2000)).status for n in range(5)] == [400] * 5
        server.script = lambda turn: turn.reply(b'{"object": "list", "data": [%b]}' % (b" " * 2000))
        assert [front.get("/v1/models").status for _ in range(5)] == [200] * 5


@pytest.fixture
def accounts() -> Iterator[Accounts]:
    """Of no file."""
    log = open_log("ERROR")
    yield Accounts(None, log)
    log.close()


def test_the_longer_wait_is_named(accounts: Accounts) -> None:
    now = 0.0
    limits = ProxySettings(requests_per_minute=60, tokens_per_minute=60)
    limiter = Limiter(limits, accounts, monotonic=lambda: now, clock=lambda: now)
    ask, meter = Ask("POST", CHAT, CHAT.encode(), [], b"{}", "127.0.0.1"), Meter()
    meter.see(b'{"usage": {"total_tokens": 90}}')
    for _ in range(60):
        assert limiter.refusal(ask) is None
    limiter.used(ask, meter, counts=True)
    refused = limiter.refusal(ask)
    assert refused is not None
    assert refused.retry_after is not None
    assert refused.retry_after > 30  # a request would be free again after one second
    now += refused.retry_after
    assert limiter.refusal(ask) is None


class _Held:
    """A script that answers when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, turn: Turn) -> None:
        self.go.wait(20)
        plain(turn)


def test_a_full_house(cache_dir: Path, env: dict[str, str]) -> None:
    """Two are worked on, two wait, more are told at once; hits and pages are served all the while."""
    more = {"LLMPOD_MAX_IN_FLIGHT": "2", "LLMPOD_MAX_QUEUE": "2"}
    with limited(cache_dir, env, **more) as (front, server):
        front.ask(chat_body("stored"))
        server.turns.clear()
        server.script = held = _Held()
        inside = [Client(front.port, timeout=20) for _ in range(4)]
        for number, client in enumerate(inside):
            client.sock.sendall(raw_chat(f"inside {number}"))
            if number < 2:
                server.wait_turns(number + 1)
        eventually(lambda: _within(front))
        began = time.monotonic()
        reply = front.ask(chat_body("late"))
        assert (reply.status, reply.json["error"]["code"]) == (503, "overloaded")
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert time.monotonic() - began < 2
        assert front.ask(chat_body("stored")).cache == "HIT"
        assert front.get("/health").status == 200
        assert len(server.turns) == 2
        inside[3].close()  # who leaves the line makes room
        held.go.set()
        assert [client.reply().status for client in inside[:3]] == [200] * 3
        for client in inside[:3]:
            client.close()


def _within(front: Proxy) -> object:
    """An answer once the line is full."""
    with Client(front.port, timeout=0.5) as client:
        client.sock.sendall(raw_chat("probe"))
        try:
            return client.reply()
        except TimeoutError:
            return None


def test_callers_take_turns(tmp_path: Path, env: dict[str, str]) -> None:
    """One place; a caller with eight in the line does not keep another one waiting for all of them."""
    path = tmp_path / KEYS_FILE
    write_keys(path, entry("infer"), entry("second"))
    more = {"LLMPOD_AUTH": "keys", "LLMPOD_KEYS_FILE": str(path), "LLMPOD_MAX_IN_FLIGHT": "1"}
    with limited(tmp_path / "c", env, **more) as (front, server):
        server.script = held = _Held()
        clients = []

        def send(who: str, text: str) -> None:
            clients.append(Client(front.port, timeout=20))
            clients[-1].sock.sendall(raw_chat(text, lines=f"authorization: Bearer {KEYS[who]}\r\n"))

        for number in range(9):
            send("infer", f"greedy {number}")
            server.wait_turns(1)
        send("second", "modest")
        eventually(lambda: front.get("/livez").status == 200)
        held.go.set()
        assert [client.reply().status for client in clients] == [200] * 10
        texts = [turn.json["messages"][-1]["content"] for turn in server.turns]
        assert texts.index("modest") <= 3
        for client in clients:
            client.close()


def test_who_waits_too_long_is_told(cache_dir: Path, env: dict[str, str]) -> None:
    more = {"LLMPOD_MAX_IN_FLIGHT": "1", "LLMPOD_QUEUE_SECONDS": "1"}
    with limited(cache_dir, env, **more) as (front, server):
        server.script = held = _Held()
        with Client(front.port) as first, Client(front.port) as second:
            first.sock.sendall(raw_chat("works"))
            server.wait_turns(1)
            second.sock.sendall(raw_chat("waits"))
            assert second.reply().status == 503
            held.go.set()
            assert first.reply().status == 200
        assert len(server.turns) == 1


def _note(notes: list[str], text: str, _: LlmpodError) -> None:
    notes.append(text)


def _never(error: LlmpodError) -> None:
    raise AssertionError(error)


def test_two_thousand_that_are_done_at_once_are_no_chain() -> None:
    slots, order = Slots(1, 5000, patience=1), list[int]()
    places: list[Place] = []

    def go(number: int) -> None:
        order.append(number)
        if number:
            slots.leave(places[number])

    for number in range(2000):
        places.append(Place("me", partial(go, number), _never))
        slots.enter(places[-1])
    slots.leave(places[0])
    assert order == list(range(2000))
    assert slots.waiting == 0


def test_the_greedy_one_makes_room() -> None:
    slots, dismissed = Slots(1, 4, patience=1), list[str]()
    for number in range(5):
        slots.enter(Place("greedy", lambda: None, partial(_note, dismissed, f"greedy {number}")))
    slots.enter(Place("modest", lambda: None, _never))
    assert dismissed == ["greedy 4"]
    slots.enter(Place("modest", lambda: None, _never))
    with pytest.raises(Overloaded):
        slots.enter(Place("modest", lambda: None, _never))
    assert slots.waiting == 4
