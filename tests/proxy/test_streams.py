"""Live streams: every frame as it comes, the end told truly, the entry stored at the last event."""

import json
import threading
import time

import pytest

from tests.proxy.front import Client, Proxy, chat_body, raw_chat
from tests.proxy.stub import CHAT, Stub, Turn, frames, one_by_one
from tests.support.wait import eventually


def ask(client: Client, text: str) -> None:
    client.send("POST", CHAT, json.dumps(chat_body(text, stream=True)).encode())


def last_event(body: bytes) -> dict[str, object]:
    found: dict[str, object] = json.loads(body.rstrip().rpartition(b"data: ")[2])
    return found


def test_no_frame_is_held_back_merged_or_split(front: Proxy, server: Stub) -> None:
    """The server sends a frame only after the client has got the one before, whatever it looks like."""
    odd = [
        b": a comment\n\n",
        b"\n",
        b'event: x\r\ndata: {"a":1}\r\n\r\n',
        b"data:no space\n\n",
        b"id: 7\nretry: 1\n\n",
    ]
    script_frames = [*frames("a", "b")[:-1], *odd, b"data: [DONE]\n\n"]
    got = threading.Semaphore(1)

    server.script = one_by_one(script_frames, got)
    with front.client() as client:
        ask(client, "frames")
        response = client.open_reply()
        assert response.headers["x-accel-buffering"] == "no"
        for frame in script_frames:
            assert response.read1(65536) == frame
            got.release()
        assert response.read1(65536) == b""


def test_a_frame_that_comes_in_pieces_is_passed_on_in_pieces(front: Proxy, server: Stub) -> None:
    pieces = [b"data: {", b'"choices": []', b"}\n", b"\n", b"data: [DO", b"NE]\n\n"]
    got = threading.Semaphore(1)

    server.script = one_by_one(pieces, got)
    with front.client() as client:
        ask(client, "pieces")
        response = client.open_reply()
        for piece in pieces:
            assert response.read1(65536) == piece
            got.release()


def test_stored_at_the_last_event_though_the_client_hangs_up_there(front: Proxy, server: Stub) -> None:
    release = threading.Event()

    def script(turn: Turn) -> None:
        turn.stream()
        turn.chunk(b"".join(frames("whole", "answer")))
        release.wait(5)
        turn.last()

    server.script = script
    with front.client() as client:
        ask(client, "hang up")
        response = client.open_reply()
        body = b""
        while not body.endswith(b"data: [DONE]\n\n"):
            body += response.read1(65536)
    hit = eventually(
        lambda: front.ask(chat_body("hang up", stream=True), headers={"Cache-Control": "only-if-cached"})
    )
    assert (hit.cache, hit.body) == ("HIT", body)
    release.set()


def test_the_connection_of_such_a_stream_is_used_again(front: Proxy, server: Stub) -> None:
    release = threading.Event()

    def script(turn: Turn) -> None:
        turn.stream()
        turn.chunk(b"".join(frames("x")))
        release.wait(5)
        turn.last()

    server.script = script
    before = server.connections
    with front.client() as client:
        ask(client, "tail")
        response = client.open_reply()
        assert response.read1(65536)
    eventually(lambda: front.metrics()["client_gone_total"] >= 1)
    release.set()
    eventually(lambda: front.metrics()["requests_in_flight"] == 0)
    front.ask(chat_body("after the tail", stream=True))
    assert server.connections <= before + 1


@pytest.mark.parametrize("end", ["reset", "close", "clean", "stall", "garbage"])
def test_an_answer_that_dies_never_ends_cleanly(front: Proxy, server: Stub, end: str) -> None:
    """F3, F4, F5, F6, F13: reset, early close, a clean end without the last event, silence, a malformed chunk."""
    arrived = threading.Event()

    def script(turn: Turn) -> None:
        turn.stream()
        for frame in frames("half")[:2]:
            turn.chunk(frame)
        arrived.wait(5)
        match end:
            case "reset":
                turn.reset()
            case "close":
                turn.close()
            case "clean":
                turn.last()
            case "garbage":
                turn.send(b"zz\r\nboo\r\n")
            case _:
                turn.wait_gone(within=5)

    server.script = script
    truncated = front.metrics()["truncated_total"]
    begun = b"".join(frames("half")[:2])
    with front.client() as client:
        ask(client, f"dies: {end}")
        response = client.open_reply()
        assert response.status == 200
        assert response.read(len(begun)) == begun
        arrived.set()
        reply = client.rest(response)
    assert reply.cut
    assert b"[DONE]" not in reply.body
    error = last_event(reply.body)["error"]
    assert isinstance(error, dict)
    assert error["message"]
    assert front.metrics()["truncated_total"] == truncated + 1
    server.script = lambda t: t.reply(b"{}")
    assert front.ask(chat_body(f"dies: {end}", stream=True)).cache == "MISS"


def test_a_server_that_never_says_done_is_believed_when_it_gave_a_reason(front: Proxy, server: Stub) -> None:
    def script(turn: Turn) -> None:
        turn.stream()
        turn.chunk(b"".join(frames("transformers", done=False)))
        turn.last()

    server.script = script
    reply = front.ask(chat_body("no done", stream=True))
    assert not reply.cut
    assert reply.body == b"".join(frames("transformers", done=False))


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_document_that_is_cut_breaks_the_connection(front: Proxy, server: Stub, framing: str) -> None:
    """F3, F13: whatever says where it should have ended."""

    def script(turn: Turn) -> None:
        half = b'{"id": "c1", "choices": ['
        match framing:
            case "length":
                turn.head("content-type: application/json", "content-length: 500")
                turn.send(half)
            case "chunked":
                turn.head("content-type: application/json", "transfer-encoding: chunked")
                turn.chunk(half)
            case _:
                turn.head("content-type: application/json", "connection: close")
                turn.send(half)
        turn.close()

    server.script = script
    assert front.ask(chat_body(f"cut document {framing}")).cut


def test_who_leaves_takes_the_upstream_call_along(front: Proxy, server: Stub) -> None:
    """F56: in the middle of a stream, within 250 ms."""
    left: list[float] = []

    def script(turn: Turn) -> None:
        turn.stream()
        turn.chunk(frames("x")[0])
        if turn.wait_gone():
            left.append(time.monotonic())

    server.script = script
    with front.client() as client:
        ask(client, "leave")
        assert client.open_reply().read1(65536)
        gone_at = time.monotonic()
    eventually(lambda: left)
    assert left[0] - gone_at < 0.25


def test_leaving_before_the_first_byte_cancels_too(front: Proxy, server: Stub) -> None:
    """F56: before the first byte."""
    left: list[float] = []

    def script(turn: Turn) -> None:
        if turn.wait_gone():
            left.append(time.monotonic())

    server.script = script
    with front.client() as client:
        client.send("POST", CHAT, json.dumps(chat_body("leave early")).encode())
        server.wait_turns(1)
        gone_at = time.monotonic()
    eventually(lambda: left)
    assert left[0] - gone_at < 0.25


def test_a_stream_that_is_done_before_its_length_does_not_leave_its_client_waiting(
    front: Proxy, server: Stub
) -> None:
    """Found by chance (tests/fuzz): the next answer on the connection would have been taken for its rest."""
    body = b"".join(frames("short"))

    def script(turn: Turn) -> None:
        turn.head("content-type: text/event-stream", f"content-length: {len(body) + 5}")
        turn.send(body)
        turn.close()

    server.script = script
    with front.client() as client:
        for _ in range(2):
            client.sock.sendall(
                raw_chat("done before its length", stream=True, lines="cache-control: no-store\r\n")
            )
        reply = client.reply()
        assert (reply.body, reply.cut) == (body, True)
