"""Messages and Responses: one entry and one call for both forms, where that changes nothing but the form."""

import json
import threading
from pathlib import Path
from typing import Any

from tests.cache.helpers import DATA, exchange
from tests.cache.test_other_apis import END, MESSAGES, RESPONSES, START, delta, stream_of
from tests.proxy.front import Proxy, proxy, settings
from tests.proxy.stub import Stub, Turn, stub

BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
STOP = {"type": "content_block_stop", "index": 0}
SAID = delta(0, type="text_delta", text="hello")
EVENTS = stream_of(START, BLOCK, SAID, STOP, END, {"type": "message_stop"})
DOCUMENT = {
    **START["message"],  # type: ignore[dict-item]  # one of its values is a mapping
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 3, "output_tokens": 5},
}
_, _, RESPONSE_EVENTS = exchange(DATA / "transformers_serve" / "responses.http")


def question(text: str, **more: Any) -> dict[str, Any]:
    return {
        "model": "x",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": text}],
        "input": text,
        **more,
    }


def script(turn: Turn) -> None:
    """Messages in the form that was asked for; Responses as streams."""
    events = RESPONSE_EVENTS if turn.target == RESPONSES else EVENTS
    if turn.json.get("stream"):
        turn.stream()
        turn.chunk(events)
        turn.last()
    else:
        turn.reply(json.dumps(DOCUMENT).encode())


def test_a_stored_stream_is_a_document_too(front: Proxy, server: Stub) -> None:
    server.script = script
    assert front.ask(question("a", stream=True), path=MESSAGES).body == EVENTS
    hit = front.ask(question("a"), path=MESSAGES)
    assert (hit.cache, hit.json, hit.headers["content-type"]) == ("HIT", DOCUMENT, "application/json")
    assert front.ask(question("a", stream=True), path=RESPONSES).body == RESPONSE_EVENTS
    response = front.ask(question("a"), path=RESPONSES)
    assert (response.cache, response.json["output"][0]["content"][0]["text"]) == ("HIT", "e\u0012^")


def test_a_stored_document_is_a_stream_too(front: Proxy, server: Stub) -> None:
    server.script = script
    assert front.ask(question("b"), path=MESSAGES).json == DOCUMENT
    hit = front.ask(question("b", stream=True), path=MESSAGES)
    assert hit.cache == "HIT"
    assert [line for line in hit.body.decode().splitlines() if line.startswith("event:")] == [
        line for line in EVENTS.decode().splitlines() if line.startswith("event:")
    ]


def test_both_forms_join_one_call(front: Proxy, server: Stub) -> None:
    go = threading.Event()

    def later(turn: Turn) -> None:
        assert go.wait(10)
        script(turn)

    server.script = later
    with front.client() as one, front.client() as two:
        one.send("POST", MESSAGES, json.dumps(question("c", stream=True)).encode())
        server.wait_turns(1)
        two.send("POST", MESSAGES, json.dumps(question("c")).encode())
        front.metrics()
        go.set()
        live, document = one.reply(), two.reply()
    assert (live.body, document.json, document.cache) == (EVENTS, DOCUMENT, "JOIN")
    assert len(server.turns) == 1


def test_asked_for_as_a_stream_unless_the_server_is_to_keep_it(cache_dir: Path, env: dict[str, str]) -> None:
    with stub() as server, proxy(env | settings(cache_dir, server.url, UPSTREAM_STREAM="always")) as front:
        server.script = script
        assert front.ask(question("d"), path=MESSAGES).json == DOCUMENT
        assert front.ask(question("d"), path=RESPONSES).json["status"] == "completed"
        front.ask(question("d", background=True), path=RESPONSES)
        assert [turn.json.get("stream") for turn in server.turns] == [True, True, None]
        assert not any("stream_options" in turn.json for turn in server.turns)
