"""The way to the model server: connections, faults, what crosses and what does not."""

import json

import pytest

from tests.proxy.front import Proxy, chat_body
from tests.proxy.stub import CHAT, Stub, Turn, chat, plain


def test_connections_are_used_again(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("warm up"))
    before = server.connections
    for number in range(5):
        front.ask(chat_body(f"reuse {number}"))
    assert server.connections == before


def test_a_connection_that_the_server_closed_is_not_used(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("before the close"))
    server.close_connections()
    assert front.ask(chat_body("after the close")).status == 200


def test_a_stale_connection_is_tried_once_more_on_a_fresh_one(front: Proxy, server: Stub) -> None:
    """F2: no byte of an answer came, and the server closes idle connections when it likes."""
    front.ask(chat_body("fresh"))
    calls: list[Turn] = []

    def script(turn: Turn) -> None:
        calls.append(turn)
        turn.close() if len(calls) == 1 else plain(turn)

    server.script = script
    assert front.ask(chat_body("stale")).body == chat("you said stale")
    assert len(calls) == 2


def test_and_only_once(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("fresh again"))
    server.turns.clear()
    server.script = lambda t: t.close()
    reply = front.ask(chat_body("always stale"))
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_unreachable")
    assert len(server.turns) == 2


def test_what_has_begun_is_not_tried_again(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("fresh once more"))
    server.turns.clear()

    def script(turn: Turn) -> None:
        turn.send(b"HTTP/1.1 200 O")
        turn.close()

    server.script = script
    assert front.ask(chat_body("begun")).status == 502
    assert len(server.turns) == 1


def test_a_cancelled_answer_never_reaches_the_next_client(front: Proxy, server: Stub) -> None:
    """F56: the connection of a call that was given up is not used again."""

    def script(turn: Turn) -> None:
        if b"first" in turn.body:
            turn.head("content-type: application/json", "content-length: 100")
            turn.wait_gone()
            return
        plain(turn)

    server.script = script
    with front.client() as client:
        client.send("POST", CHAT, json.dumps(chat_body("first")).encode())
        client.open_reply()
    assert front.ask(chat_body("second")).body == chat("you said second")


def test_no_first_byte_in_time(front: Proxy, server: Stub) -> None:
    def script(turn: Turn) -> None:
        turn.wait_gone()

    server.script = script
    reply = front.ask(chat_body("silence"))
    assert (reply.status, reply.json["error"]["code"]) == (504, "upstream_timeout")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"content-length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://169.254.7.7/\r\ncontent-length: 0\r\n\r\n",
    ],
    ids=[
        "two lengths",
        "length and chunked",
        "bare LF",
        "not HTTP",
        "long field",
        "many fields",
        "upgrade",
        "redirect",
    ],
)
def test_a_hostile_answer_is_refused(front: Proxy, server: Stub, raw: bytes) -> None:
    """F13: what is no proper HTTP is a 502."""

    def script(turn: Turn) -> None:
        turn.send(raw)
        turn.wait_gone(within=3)

    server.script = script
    reply = front.ask(chat_body("hostile"))
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_invalid")
    assert "location" not in reply.headers


def test_informational_answers_are_skipped(front: Proxy, server: Stub) -> None:
    def script(turn: Turn) -> None:
        turn.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
        plain(turn)

    server.script = script
    assert front.ask(chat_body("hints")).body == chat("you said hints")


def test_more_than_one_answer_closes_the_connection(front: Proxy, server: Stub) -> None:
    first, second = chat("mine"), chat("smuggled")
    server.script = lambda t: t.send(
        b"".join(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(b), b)
            for b in (first, second)
        )
    )
    assert front.ask(chat_body("double")).body == first
    server.script = plain
    before = server.connections
    assert front.ask(chat_body("after double")).body == chat("you said after double")
    assert server.connections == before + 1


def test_an_answer_that_ends_with_the_connection(front: Proxy, server: Stub) -> None:
    def script(turn: Turn) -> None:
        turn.head("content-type: application/json")
        turn.send(chat("until close"))
        turn.close()

    server.script = script
    replies = [front.ask(chat_body("close delimited")) for _ in range(2)]
    assert [(r.body, r.cut, r.cache) for r in replies] == [
        (chat("until close"), False, c) for c in ("MISS", "HIT")
    ]


@pytest.mark.parametrize(
    ("foreign", "message"),
    [
        (("401 Unauthorized", "application/json", b'{"error":"Unauthorized"}'), "Unauthorized"),
        (("404 Not Found", "application/json", b'{"detail":"Not Found"}'), "Not Found"),
        (("422 X", "application/json", b'{"detail":[{"loc":["body"],"msg":"bad"}]}'), "bad"),
        (("500 X", "text/plain", b"Internal Server Error"), "Internal Server Error"),
        (("520 X", "text/html", b"<html><h1>Unknown error</h1></html>"), "520"),
        (("503 X", "application/json", b""), "503"),
    ],
)
def test_foreign_errors_get_the_shape_that_clients_read(
    front: Proxy, server: Stub, foreign: tuple[str, str, bytes], message: str
) -> None:
    status, kind, body = foreign
    server.script = lambda t: t.reply(body, "retry-after: 7", status=status, kind=kind)
    reply = front.ask(chat_body("error"))
    assert reply.status == int(status[:3])
    assert message in reply.json["error"]["message"]
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["retry-after"] == "7"
    if kind == "application/json" and body:
        assert reply.json["error"]["original"] == json.loads(body)


def test_errors_of_the_right_shape_pass_untouched(front: Proxy, server: Stub) -> None:
    body = b'{ "error": {"message": "too long", "type": "BadRequestError", "code": 400} }'
    server.script = lambda t: t.reply(body, status="400 Bad Request")
    assert front.ask(chat_body("too long")).body == body


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH"])
def test_every_method_passes(front: Proxy, server: Stub, method: str) -> None:
    body = b'{"x":1}' if method in ("PUT", "PATCH") else b""
    reply = front.ask(body, path="/v1/things/a%20b?c=%2F&d", method=method)
    assert reply.json == {"method": method, "target": "/v1/things/a%20b?c=%2F&d", "body": body.decode()}


def test_head(front: Proxy, server: Stub) -> None:
    reply = front.get("/v1/models", method="HEAD")
    assert (reply.status, reply.body) == (200, b"")


def test_multipart_passes_byte_for_byte(front: Proxy, server: Stub) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\x00\xff\r\n\x01\r\n--b--\r\n'
    server.script = lambda t: t.reply(b'{"text":"hm"}')
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    reply = front.ask(body, path="/v1/audio/transcriptions", headers=headers)
    assert (reply.json, reply.cache) == ({"text": "hm"}, "BYPASS")
    assert server.turns[0].body == body
    assert server.turns[0].headers["content-type"] == headers["Content-Type"]


def test_the_request_arrives_as_it_was_written(front: Proxy, server: Stub) -> None:
    body = b'{ "messages": [ {"role":"user","content":"\\u00e9 \xc3\xa9"} ],\t"model":"m", "x": {"y": [1.0, 1e5]} }'
    front.ask(
        body,
        headers={
            "Cookie": "a=b",
            "X-Forwarded-For": "1.2.3.4",
            "Connection": "x-y",
            "X-Y": "z",
            "OpenAI-Beta": "v2",
        },
    )
    turn = server.turns[0]
    assert turn.body == body
    assert {"cookie", "x-forwarded-for", "connection", "x-y"}.isdisjoint(turn.headers)
    assert turn.headers["host"] == f"127.0.0.1:{server.port}"
    assert turn.headers["accept-encoding"] == "identity"
    assert turn.headers["openai-beta"] == "v2"


def test_a_page_from_upstream_is_no_page_of_ours(front: Proxy, server: Stub) -> None:
    server.script = lambda t: t.reply(b"<script>", kind="text/html", status="200 OK")
    reply = front.get("/v1/page")
    assert reply.headers["content-type"] == "application/octet-stream"
