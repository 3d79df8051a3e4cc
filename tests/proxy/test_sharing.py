"""One upstream call for everybody who asks the same meanwhile, in whatever form, at whatever pace."""

import json
import threading

from tests.proxy.front import Client, Proxy, chat_body
from tests.proxy.stub import CHAT, Stub, Turn, frames
from tests.support.wait import eventually


def ask(client: Client, text: str) -> None:
    client.send("POST", CHAT, json.dumps(chat_body(text, stream=True)).encode())


def test_identical_requests_share_one_call_and_a_late_one_gets_everything(front: Proxy, server: Stub) -> None:
    rest = threading.Event()
    sent = frames("shared", "by", "all")

    def script(turn: Turn) -> None:
        turn.stream()
        turn.chunk(sent[0])
        rest.wait(5)
        for frame in sent[1:]:
            turn.chunk(frame)
        turn.last()

    server.script = script
    with front.client() as first, front.client() as second, front.client() as document:
        ask(first, "join")
        leader = first.open_reply()
        assert leader.read1(65536) == sent[0]
        ask(second, "join")
        late = second.open_reply()
        assert late.read1(65536) == sent[0]
        assert (leader.headers["x-cache"], late.headers["x-cache"]) == ("MISS", "JOIN")
        first.close()  # the leader leaves, the other one listens on
        document.send("POST", CHAT, json.dumps(chat_body("join", stream=True)).encode())
        rest.set()
        assert late.read() == b"".join(sent[1:])
        assert document.reply().body == b"".join(sent)
    assert len(server.turns) == 1


def test_mixed_forms_share_one_call(front: Proxy, server: Stub) -> None:
    go = threading.Event()

    def script(turn: Turn) -> None:
        go.wait(5)
        plain_frames = frames("mixed", usage=True)
        turn.stream()
        turn.chunk(b"".join(plain_frames))
        turn.last()

    server.script = script
    counted = json.dumps(chat_body("mixed", stream=True, stream_options={"include_usage": True})).encode()
    with front.client() as a, front.client() as b, front.client() as c:
        a.send("POST", CHAT, counted)
        server.wait_turns(1)
        b.send("POST", CHAT, json.dumps(chat_body("mixed")).encode())
        ask(c, "mixed")
        eventually(lambda: front.metrics()["requests_in_flight"] == 1)
        go.set()
        replies = [client.reply() for client in (a, b, c)]
    assert [r.cache for r in replies] == ["MISS", "JOIN", "JOIN"]
    assert replies[1].json["usage"]["total_tokens"] == 3
    assert b'"usage"' not in replies[2].body
    assert replies[2].body.endswith(b"data: [DONE]\n\n")
    assert len(server.turns) == 1


def test_a_reader_that_is_slow_holds_nobody_up(front: Proxy, server: Stub) -> None:
    """The first one reads nothing while 4 MiB pass; the second one gets them all."""
    piece = b"data: " + b"x" * 65536 + b"\n\n"

    def script(turn: Turn) -> None:
        turn.stream()
        turn.chunk(frames("x")[0])
        eventually(lambda: len(front.logs()) and joined.is_set(), within=5)
        for _ in range(64):
            turn.chunk(piece)
        turn.chunk(b"".join(frames("x")[1:]))
        turn.last()

    joined = threading.Event()
    server.script = script
    with front.client() as slow, front.client() as quick:
        ask(slow, "slow reader")
        server.wait_turns(1)
        ask(quick, "slow reader")
        response = quick.open_reply()
        first = response.read1(65536)
        joined.set()
        assert len(first) + len(response.read()) == sum(map(len, frames("x"))) + 64 * len(piece)
        assert len(slow.reply().body) == sum(map(len, frames("x"))) + 64 * len(piece)
