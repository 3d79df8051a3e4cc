"""Who gets whose answer: all who ask the same, and nobody else."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.conftest import _base
from tests.proxy.front import Client, Proxy, Reply, chat_body, proxy, settings
from tests.proxy.stub import CHAT, Stub, Turn, chat, frames
from tests.proxy.test_keeper import READY, write
from tests.support.wait import eventually


@pytest.fixture(scope="module")
def generous(_server: Stub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy that asks for token counts in every stream, and lets an answer end when all have left."""
    cache = tmp_path_factory.mktemp("cache") / "entries"
    environ = settings(cache, _server.url, UPSTREAM_USAGE="always", FINISH_SECONDS="1")
    with proxy({**_base(), **environ}) as running:
        yield running


def held(server: Stub, text: str = "Hello") -> threading.Event:
    """The server answers when it is told to, in the form it is asked for."""
    go = threading.Event()

    def script(turn: Turn) -> None:
        assert go.wait(10)
        asked = turn.json
        if not asked.get("stream"):
            turn.reply(chat(text))
            return
        turn.stream()
        for frame in frames(text, usage=bool((asked.get("stream_options") or {}).get("include_usage"))):
            turn.chunk(frame)
        turn.last()

    server.script = script
    return go


def ask(client: Client, body: Any, headers: dict[str, str] | None = None, *, path: str = CHAT) -> None:
    client.send("POST", path, json.dumps(body).encode(), headers)


# --- all who ask the same ---------------------------------------------------------------------------------------
def test_fifty_in_both_forms_are_one_call(generous: Proxy, server: Stub) -> None:
    """F57: streams and documents, one after the other; the first byte comes to all who can have one."""
    go = held(server, "both")
    clients = [generous.client() for _ in range(50)]
    for number, client in enumerate(clients):
        ask(client, chat_body("both forms", **({"stream": True} if number % 2 == 0 else {})))
        if number == 0:
            server.wait_turns(1)
    generous.metrics()  # answered after they were read: one loop serves all
    go.set()
    replies = [client.reply() for client in clients]
    for client in clients:
        client.close()
    assert len(server.turns) == 1
    assert [reply.cache for reply in replies] == ["MISS"] + ["JOIN"] * 49
    assert {reply.body for reply in replies[::2]} == {b"".join(frames("both"))}
    documents = {reply.body for reply in replies[1::2]}
    assert len(documents) == 1
    document = json.loads(documents.pop())
    assert document["choices"][0]["message"]["content"] == "both"
    assert document["usage"]["total_tokens"] == 3


@pytest.mark.parametrize("case", [("", 1), ("asked", 2)])
def test_a_server_that_we_run_is_asked_once_for_both_forms_unless_told_otherwise(
    server: Stub, cache_dir: Path, state_dir: Path, env: dict[str, str], case: tuple[str, int]
) -> None:
    usage, calls = case
    state_file = state_dir / "pod_state.json"
    write(state_file, replace(READY, base_url=server.url))
    go = held(server, "both")
    more = {"LLMPOD_STATE": str(state_file), **({"UPSTREAM_USAGE": usage} if usage else {})}
    with proxy(env | settings(cache_dir, **more)) as front:
        clients = [front.client() for _ in range(4)]
        for number, client in enumerate(clients):
            ask(client, chat_body("both forms", **({"stream": True} if number % 2 == 0 else {})))
            server.wait_turns(min(number + 1, calls))
        front.metrics()  # answered after they were read: one loop serves all
        go.set()
        replies = [client.reply() for client in clients]
        for client in clients:
            client.close()
    assert len(server.turns) == calls
    assert {reply.body for reply in replies[::2]} == {b"".join(frames("both"))}
    assert {reply.json["choices"][0]["message"]["content"] for reply in replies[1::2]} == {"both"}


def test_a_stream_without_counts_is_live_though_they_are_asked_for(generous: Proxy, server: Stub) -> None:
    """Frame by frame, each sent only after the client has the one before, and the frame with the counts taken out."""
    got = threading.Semaphore(1)
    sent = frames("a", "b", usage=True)

    def script(turn: Turn) -> None:
        assert turn.json["stream_options"] == {"include_usage": True}
        turn.stream()
        for frame in sent:
            if b'"choices": []' not in frame:
                assert got.acquire(timeout=5)
            for piece in (frame[:10], frame[10:]):
                turn.chunk(piece)
        turn.last()

    server.script = script
    with generous.client() as client:
        ask(client, chat_body("live", stream=True))
        response = client.open_reply()
        for frame in frames("a", "b"):
            assert response.read(len(frame)) == frame
            got.release()
        assert response.read() == b""
    assert generous.ask(chat_body("live")).cache == "HIT"
    counted = generous.ask(chat_body("live", stream=True, stream_options={"include_usage": True}))
    assert (counted.cache, counted.body) == ("HIT", b"".join(sent))


def test_a_stream_of_a_named_length_gets_another_without_counts(generous: Proxy, server: Stub) -> None:
    """Found by a review: the next answer on the connection was taken for the missing end of this one."""
    body = b"".join(frames("named", usage=True))
    server.script = lambda turn: turn.reply(body, kind="text/event-stream")
    with generous.client() as client:
        for text in ("a named length", "and again", "a named length"):
            ask(client, chat_body(text, stream=True))
            assert client.reply().body == b"".join(frames("named"))


def test_a_leader_that_leaves_hands_over(front: Proxy, server: Stub) -> None:
    """F57: documents too; the second one gets the answer of the first one's call."""
    go = held(server, "handed over")
    with front.client() as first, front.client() as second:
        ask(first, chat_body("hand over"))
        server.wait_turns(1)
        ask(second, chat_body("hand over"))
        front.metrics()
        first.close()
        eventually(lambda: front.metrics()["client_gone_total"] >= 1)
        go.set()
        reply = second.reply()
    assert (reply.cache, reply.body) == ("JOIN", chat("handed over"))
    assert len(server.turns) == 1


def test_a_server_that_refuses_refuses_all_and_the_next_one_asks_anew(front: Proxy, server: Stub) -> None:
    """F57: what the server said to the leader is true for those who asked the same; it is not kept."""
    go = threading.Event()

    def script(turn: Turn) -> None:
        assert go.wait(10)
        turn.reply(b'{"error": {"message": "full"}}', status="503 X")

    server.script = script
    with front.client() as first, front.client() as second:
        for client in (first, second):
            ask(client, chat_body("full"))
        server.wait_turns(1)
        front.metrics()
        go.set()
        assert [client.reply().status for client in (first, second)] == [503, 503]
    held(server).set()
    assert front.ask(chat_body("full")).status == 200
    assert len(server.turns) == 2


def test_callers_who_share_the_store_share_no_refusal(
    server: Stub, cache_dir: Path, env: dict[str, str]
) -> None:
    """What the server says to one credential is not true for another one."""
    go = threading.Event()

    def script(turn: Turn) -> None:
        assert go.wait(10)
        if turn.headers.get("authorization") == "Bearer good":
            turn.reply(chat("for all"))
        else:
            turn.reply(b'{"error": {"message": "who?"}}', status="401 Unauthorized")

    server.script = script
    with proxy(env | settings(cache_dir, server.url, CACHE_SHARED="true")) as front:
        with front.client() as bad, front.client() as good:
            ask(bad, chat_body("shared"), {"Authorization": "Bearer bad"})
            server.wait_turns(1)
            ask(good, chat_body("shared"), {"Authorization": "Bearer good"})
            front.metrics()
            go.set()
            assert [client.reply().status for client in (bad, good)] == [401, 200]
        assert front.ask(chat_body("shared"), headers={"Authorization": "Bearer third"}).cache == "HIT"


# --- an answer that nobody waits for any more -------------------------------------------------------------------
def _hit(reply: Reply) -> Reply | None:
    return reply if reply.cache == "HIT" else None


def begun(turn: Turn) -> None:
    turn.stream()
    turn.chunk(b"".join(frames("almost", usage=True)[:2]))


def test_an_answer_may_end_by_itself_when_that_is_wanted(generous: Proxy, server: Stub) -> None:
    left = threading.Event()

    def script(turn: Turn) -> None:
        begun(turn)
        assert left.wait(5)
        turn.chunk(b"".join(frames("almost", usage=True)[2:]))
        turn.last()

    server.script = script
    gone = generous.metrics()["client_gone_total"]
    with generous.client() as client:
        ask(client, chat_body("almost done", stream=True))
        client.open_reply().read1(65536)
    eventually(lambda: generous.metrics()["client_gone_total"] > gone)
    left.set()
    stored = {"Cache-Control": "only-if-cached"}
    hit = eventually(lambda: _hit(generous.ask(chat_body("almost done"), headers=stored)))
    assert hit is not None
    assert hit.json["choices"][0]["message"]["content"] == "almost"
    assert len(server.turns) == 1


def test_but_not_for_ever(generous: Proxy, server: Stub) -> None:
    gone: list[float] = []

    def script(turn: Turn) -> None:
        begun(turn)
        if turn.wait_gone():
            gone.append(time.monotonic())

    server.script = script
    with generous.client() as client:
        ask(client, chat_body("not for ever", stream=True))
        client.open_reply().read1(65536)
        left = time.monotonic()
    eventually(lambda: gone)
    assert gone[0] - left >= 0.9


def test_whoever_comes_and_goes_in_that_time_gives_it_anew(generous: Proxy, server: Stub) -> None:
    gone: list[float] = []

    def script(turn: Turn) -> None:
        begun(turn)
        if turn.wait_gone():
            gone.append(time.monotonic())

    server.script, left = script, 0.0
    for pause in (0.6, 0.0):
        with generous.client() as client:
            ask(client, chat_body("come and gone", stream=True))
            client.open_reply().read1(65536)
            left = time.monotonic()
        time.sleep(pause)  # a part of the second that is given, not a wait for something
    eventually(lambda: gone)
    assert gone[0] - left >= 0.9
    assert len(server.turns) == 1


@pytest.mark.parametrize("options", ["abc", ["include_usage"], 7])
def test_odd_stream_options_are_for_the_server_to_refuse(
    generous: Proxy, server: Stub, options: object
) -> None:
    """They once were an error of ours, after which the request counted as being in flight for ever."""

    def refuse(turn: Turn) -> None:
        assert turn.json["stream_options"] == options
        turn.reply(b'{"error": {"message": "stream_options is no object"}}', status="400 Bad Request")

    server.script = refuse
    reply = generous.ask(chat_body("odd", stream=True, stream_options=options))
    assert (reply.status, reply.json["error"]["message"]) == (400, "stream_options is no object")
    eventually(lambda: generous.metrics()["requests_in_flight"] == 0)
