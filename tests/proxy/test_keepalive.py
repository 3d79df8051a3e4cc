"""While the model server thinks: what a client hears, in the form it understands, and how that can end."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.conftest import _base
from tests.proxy.front import Client, Proxy, Reply, chat_body, proxy, settings
from tests.proxy.stub import CHAT, Stub, Turn, chat, frames
from tests.support.wait import eventually

COMMENT = b": keepalive\n\n"
TEXT, RESPONSES, MESSAGES = "/v1/completions", "/v1/responses", "/v1/messages"
QWEN, CODEX = {"User-Agent": "QwenCode/0.24.4 (linux; x64)"}, {"User-Agent": "codex_exec/0.169.0 (Debian)"}


@pytest.fixture(scope="module")
def quick(_server: Stub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy that says every 0.2 s that it is still there."""
    cache = tmp_path_factory.mktemp("cache") / "entries"
    environ = settings(cache, _server.url, KEEPALIVE_SECONDS="0.2", KEEPALIVE_JSON="true")
    with proxy({**_base(), **environ}) as running:
        yield running


def heard(client: Client, body: dict[str, Any], headers: dict[str, str], *, path: str = CHAT) -> bytes:
    """Ask, and return the first thing that comes."""
    client.send("POST", path, json.dumps(body).encode(), headers)
    first: bytes = client.open_reply().read1(65536)
    return first


def patient(server: Stub, then: Any) -> threading.Event:
    """The server answers only when it is told to."""
    go = threading.Event()

    def script(turn: Turn) -> None:
        assert go.wait(10)
        then(turn)

    server.script = script
    return go


def stream(turn: Turn) -> None:
    turn.stream()
    turn.chunk(b"".join(frames("slow")))
    turn.last()


def rest_after_keepalive(front: Proxy, go: threading.Event, body: dict[str, Any]) -> Reply:
    """The answer to a request whose first byte was a keepalive."""
    with front.client() as client:
        client.send("POST", CHAT, json.dumps(body).encode())
        response = client.open_reply()
        assert response.status == 200
        assert response.read1(1)
        go.set()
        return client.rest(response)


def test_comments_come_before_the_answer_and_are_not_stored(quick: Proxy, server: Stub) -> None:
    """F5: a stream that is slow to begin is kept alive."""
    go = patient(server, stream)
    with quick.client() as client:
        client.send("POST", CHAT, json.dumps(chat_body("slow", stream=True)).encode())
        response = client.open_reply()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-cache"] == "MISS"
        assert response.read(2 * len(COMMENT)) == 2 * COMMENT
        go.set()
        live = client.rest(response).body
    assert live.replace(COMMENT, b"") == b"".join(frames("slow"))
    hit = quick.ask(chat_body("slow", stream=True))
    assert (hit.cache, hit.body) == ("HIT", b"".join(frames("slow")))


def test_a_head_that_comes_early_is_no_answer_yet(quick: Proxy, server: Stub) -> None:
    go = threading.Event()

    def script(turn: Turn) -> None:
        turn.stream()
        assert go.wait(10)
        turn.chunk(b"".join(frames("x")))
        turn.last()

    server.script = script
    reply = rest_after_keepalive(quick, go, chat_body("early head", stream=True))
    assert reply.body.replace(COMMENT, b"").endswith(b"".join(frames("x")))


def test_nothing_is_put_between_two_frames(quick: Proxy, server: Stub) -> None:
    def script(turn: Turn) -> None:
        turn.stream()
        turn.chunk(frames("x")[0])
        assert not turn.wait_gone(within=0.7)  # three intervals
        turn.chunk(b"".join(frames("x")[1:]))
        turn.last()

    server.script = script
    assert quick.ask(chat_body("between", stream=True)).body == b"".join(frames("x"))


@pytest.mark.parametrize(
    ("path", "headers", "kind"),
    [(CHAT, QWEN, None), (TEXT, QWEN, None), (RESPONSES, CODEX, "keepalive"), (MESSAGES, CODEX, "ping")],
)
def test_clients_that_count_events_get_events(
    quick: Proxy, server: Stub, path: str, headers: dict[str, str], kind: str | None
) -> None:
    """An empty delta, or what the API has for it; others get comments on the same path."""
    server.script = lambda turn: turn.close() if turn.wait_gone(within=10) else None
    body = chat_body(f"events {path}", stream=True, prompt="x", input="x")
    with quick.client() as client:
        first = heard(client, body, headers, path=path)
    event = json.loads(first.partition(b"data: ")[2])
    assert event.get("type") == kind
    assert first.endswith(b"}\n\n")
    if path == CHAT:
        assert event["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]
        assert (event["object"], event["model"]) == ("chat.completion.chunk", "m")
    if kind is not None:
        assert first.startswith(b"event: %b\n" % kind.encode())
    with quick.client() as client:
        assert heard(client, body, {"User-Agent": "OpenAI/Python 3"}, path=path) == COMMENT


@pytest.mark.parametrize("end", ["refused", "reset", "page"])
def test_an_error_after_it_is_an_event_and_a_cut(quick: Proxy, server: Stub, end: str) -> None:
    """F3 and F10 after a keepalive: the status is spent, so the error is told in the stream, which breaks."""

    def then(turn: Turn) -> None:
        if end == "refused":
            body = b'{\n "error": {"message": "too\\nlong", "code": 400}\n}'
            turn.reply(body, status="400 Bad Request")
        elif end == "page":
            turn.reply(b"<html>", kind="text/html")
        else:
            turn.reset()

    go = patient(server, then)
    reply = rest_after_keepalive(quick, go, chat_body(f"error {end}", stream=True))
    assert reply.cut
    assert b"[DONE]" not in reply.body
    error = json.loads(reply.body.rstrip().rpartition(b"data: ")[2])["error"]
    assert error["message"] == "too\nlong" if end == "refused" else error["code"].startswith("upstream_")


def test_white_space_for_those_who_wait_for_a_document(quick: Proxy, server: Stub) -> None:
    go = patient(server, lambda turn: turn.reply(chat("at last")))
    reply = rest_after_keepalive(quick, go, chat_body("a slow document"))
    assert (reply.cut, reply.json) == (False, json.loads(chat("at last")))
    assert quick.ask(chat_body("a slow document")).body == chat("at last")


def test_an_error_after_white_space_is_json_and_a_cut(quick: Proxy, server: Stub) -> None:
    go = patient(server, lambda turn: turn.reply(b'{"detail": "no"}', status="422 X"))
    reply = rest_after_keepalive(quick, go, chat_body("a slow refusal"))
    assert reply.cut
    assert reply.json["error"]["message"] == "no"


def test_a_document_that_dies_after_white_space_is_told(quick: Proxy, server: Stub) -> None:
    def script(turn: Turn) -> None:
        assert not turn.wait_gone(within=0.6)
        turn.head("content-type: application/json", "content-length: 500")
        turn.send(b'{"id"')
        turn.close()

    server.script = script
    reply = quick.ask(chat_body("half a slow document"))
    assert reply.cut
    assert reply.body.strip() == b'{"id"'


def test_no_white_space_unless_it_is_wanted(server: Stub, cache_dir: Path) -> None:
    def script(turn: Turn) -> None:
        assert not turn.wait_gone(within=0.6)
        turn.reply(b'{"detail": "no"}', status="422 X")

    server.script = script
    with proxy({**_base(), **settings(cache_dir, server.url, KEEPALIVE_SECONDS="0.2")}) as front:
        assert front.ask(chat_body("late refusal")).status == 422


@pytest.mark.parametrize("form", ["event", "comment"])
def test_the_form_can_be_chosen(server: Stub, cache_dir: Path, form: str) -> None:
    server.script = lambda turn: turn.close() if turn.wait_gone(within=10) else None
    more = {"KEEPALIVE_SECONDS": "0.2", "KEEPALIVE_FORM": form}
    with proxy({**_base(), **settings(cache_dir, server.url, **more)}) as front, front.client() as client:
        first = heard(client, chat_body("form", stream=True), QWEN if form == "comment" else {})
    assert first.startswith(b"data: {" if form == "event" else COMMENT)


def test_who_joins_a_call_that_is_kept_alive_gets_all_of_it(quick: Proxy, server: Stub) -> None:
    go = patient(server, stream)
    body = json.dumps(chat_body("join the wait", stream=True)).encode()
    with quick.client() as first, quick.client() as second:
        first.send("POST", CHAT, body)
        leader = first.open_reply()
        assert leader.read(len(COMMENT)) == COMMENT
        second.send("POST", CHAT, body)
        late = second.open_reply()
        assert late.headers["x-cache"] == "JOIN"
        assert late.read(len(COMMENT)) == COMMENT
        go.set()
        bodies = [client.rest(response).body for client, response in ((first, leader), (second, late))]
    assert [body.replace(COMMENT, b"") for body in bodies] == [b"".join(frames("slow"))] * 2
    assert len(server.turns) == 1


def test_who_leaves_while_it_is_kept_alive_takes_the_call_along(quick: Proxy, server: Stub) -> None:
    """F56 once more, with an answer that has begun before the model server has."""
    gone: list[float] = []

    def script(turn: Turn) -> None:
        if turn.wait_gone():
            gone.append(time.monotonic())

    server.script = script
    with quick.client() as client:
        heard(client, chat_body("leave the wait", stream=True), {})
        left = time.monotonic()
    eventually(lambda: gone)
    assert gone[0] - left < 0.25
