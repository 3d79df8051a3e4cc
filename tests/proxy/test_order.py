"""One connection, many requests: each is answered in its turn, with its own answer, whatever pieces they come in."""

import threading

from tests.proxy.front import Proxy, Reply, chat_body, raw_chat
from tests.proxy.stub import CHAT, Stub, Turn, chat, frames, plain

OPAQUE = "/v1/files"  # whatever the file is, it is passed on


def test_what_came_in_one_piece_is_answered_in_its_order(front: Proxy, server: Stub) -> None:
    """Miss, page of ours, refusal, hit, stream, a request that ends the connection, one that is too late."""
    front.ask(chat_body("kept"))
    get = b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n"
    wrong = raw_chat("x").replace(b"application/json", b"text/html")
    last = raw_chat("the last", lines="connection: close\r\n")
    pieces = [raw_chat("new"), get % b"/livez", wrong, raw_chat("kept"), raw_chat("s", stream=True), last]
    with front.client() as client:
        client.sock.sendall(b"".join([*pieces, raw_chat("too late")]))
        replies = [client.reply() for _ in pieces]
        assert client.sock.recv(1) == b""
    assert [reply.status for reply in replies] == [200, 200, 415, 200, 200, 200]
    assert [reply.cache for reply in replies] == ["MISS", "", "", "HIT", "MISS", "MISS"]
    assert replies[0].body == chat("you said new")
    assert replies[4].body == b"".join(frames("you", "said", "s"))
    assert (replies[5].body, replies[5].headers["connection"]) == (chat("you said the last"), "close")
    assert [turn.json["messages"][-1]["content"] for turn in server.turns[1:]] == ["new", "s", "the last"]


def test_a_thousand_refusals_in_one_piece(front: Proxy, server: Stub) -> None:
    """Answered one after the other, not one within the other."""
    wrong = b"POST /v1/x HTTP/1.1\r\nhost: localhost\r\ncontent-type: a/b\r\ncontent-length: 1\r\n\r\n1"
    with front.client() as client:
        client.sock.sendall(raw_chat("first") + wrong * 2000)
        assert client.reply().status == 200
        assert {client.reply().status for _ in range(2000)} == {415}


def test_what_is_no_request_is_refused_after_the_answers_before_it(front: Proxy, server: Stub) -> None:
    go = threading.Event()

    def script(turn: Turn) -> None:
        go.wait(5)
        plain(turn)

    server.script = script
    with front.client() as client:
        client.sock.sendall(raw_chat("before nonsense") + b"nonsense\r\n\r\n")
        server.wait_turns(1)
        go.set()
        assert client.reply().body == chat("you said before nonsense")
        assert client.reply().status == 400
        assert client.sock.recv(1) == b""


def test_continue_is_said_when_it_is_its_turn(front: Proxy, server: Stub) -> None:
    head, _, body = raw_chat("expects", lines="expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with front.client() as client:
        client.sock.sendall(raw_chat("before it") + head + b"\r\n\r\n")
        heard = b""
        while not heard.endswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
            heard += client.sock.recv(65536)
        assert chat("you said before it") in heard
        client.sock.sendall(body)
        assert client.reply().body == chat("you said expects")


def test_a_header_that_comes_again_belongs_to_the_body_behind_it(front: Proxy, server: Stub) -> None:
    """In one piece, in two, two in one, with the end of another, with other fields: each gets its own answer."""
    texts = [f"again {number:02}" for number in range(16)]
    raw = [raw_chat(text) for text in texts]
    head = raw[0].index(b"\r\n\r\n") + 4
    raw[8] = raw_chat(texts[8], lines="cache-control: no-store\r\n")
    raw[9] = raw_chat(texts[9], lines="cache-control: no-cache\r\n")
    pieces = [
        *(raw[0], raw[1], raw[2][:head], raw[2][head:], raw[3], raw[4][:-1], raw[4][-1:] + raw[5], raw[6]),
        *(b"\r\n" + raw[7], raw[8], raw[9], raw[10] + raw[11][:10], raw[11][10:]),
        *(raw[12] + raw[13], raw[14] + raw[15]),
    ]
    replies: list[Reply] = []
    with front.client() as client:
        for number, piece in enumerate(pieces):
            client.sock.sendall(piece)
            sent = sum(map(len, pieces[: number + 1]))
            while len(replies) < sum(sent >= sum(map(len, raw[: n + 1])) + 2 * (n > 6) for n in range(16)):
                replies.append(client.reply())
    assert [reply.body for reply in replies] == [chat(f"you said {text}") for text in texts]
    assert [reply.cache for reply in replies] == ["MISS"] * 8 + ["BYPASS"] + ["MISS"] * 7
    assert [turn.json["messages"][-1]["content"] for turn in server.turns] == texts


def test_a_body_that_looks_like_the_request_before_it_is_a_body(front: Proxy, server: Stub) -> None:
    inner = raw_chat("inner")
    outer = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data\r\ncontent-length: %d\r\n\r\n"
    with front.client() as client:
        client.sock.sendall(inner)
        assert client.reply().status == 200
        client.sock.sendall(outer % (OPAQUE.encode(), len(inner)))
        front.get("/livez")  # by now it has been read
        client.sock.sendall(inner)
        assert client.reply().json["body"] == inner.decode()
    assert [turn.target for turn in server.turns] == [CHAT, OPAQUE]


def test_an_old_client_gets_a_stream_that_ends_with_the_connection(front: Proxy, server: Stub) -> None:
    with front.client() as client:
        client.sock.sendall(raw_chat("old", stream=True, version="1.0"))
        reply = client.reply()
        assert client.sock.recv(1) == b""
    assert "transfer-encoding" not in reply.headers
    assert reply.body == b"".join(frames("you", "said", "old"))


def test_nothing_behind_a_refused_request_is_looked_at(front: Proxy, server: Stub) -> None:
    """Found by chance (tests/fuzz): a second header in the same piece was taken for one that waits to go on."""
    refused = raw_chat("page", lines="origin: https://evil.example\r\n")
    for behind in ("expect: 100-continue\r\n", "host: again\r\n"):
        with front.client() as client:
            client.sock.sendall(refused + raw_chat("behind it", lines=behind))
            assert client.reply().status == 403
            assert client.sock.recv(1) == b""
    assert not server.turns
