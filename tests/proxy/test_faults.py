"""Rows of the fault list (reliability-security.md, section 5) that no other file of this folder is about.

The others are named where they are tested: F1 test_breaker; F3, F4, F5, F56 test_streams and test_keepalive;
F2 test_upstream too; F6, F7, F12 test_endpoint; F9 test_serve; F57 test_sharing, test_direct, test_join; F58
test_order; F11's line test_pacing; F59 test_direct; F61, F62 where the edge is tested.
"""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.proxy.conftest import _base
from tests.proxy.front import SCRIPT, Proxy, chat_body, proxy, raw_chat, settings
from tests.proxy.stub import CHAT, Stub, Turn, chat, frames, stub
from tests.support.process import PYTHON


def stored(front: Proxy, text: str, *, stream: bool = False) -> bool:
    more = {"stream": True} if stream else {}
    return front.ask(chat_body(text, **more), headers={"Cache-Control": "only-if-cached"}).status == 200


def test_f2_a_reset_on_a_fresh_connection_is_not_tried_again(cache_dir: Path, env: dict[str, str]) -> None:
    """The server may have begun to compute: a POST is not safe to repeat."""
    with stub() as server, proxy(env | settings(cache_dir, server.url)) as front:
        server.script = lambda turn: turn.reset()
        reply = front.ask(chat_body("reset"))
        assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_unreachable")
        assert len(server.turns) == 1


def test_f2_a_server_that_closes_later_is_not_asked_again(cache_dir: Path, env: dict[str, str]) -> None:
    """A connection that was used before is no stale one when it lasts: the server crashed while it computed."""

    def crash(turn: Turn) -> None:
        turn.wait_gone(within=1.5)
        turn.close()

    with stub() as server, proxy(env | settings(cache_dir, server.url)) as front:
        assert front.ask(chat_body("opens a connection")).status == 200
        server.script = crash
        reply = front.ask(chat_body("crashed"))
        assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_unreachable")
        assert (len(server.turns), server.connections) == (2, 1)


def test_f5_a_head_without_a_body_has_the_time_of_a_first_byte(front: Proxy, server: Stub) -> None:
    """The limit between two reads (1 s here) begins to count with the body."""

    def script(turn: Turn) -> None:
        turn.stream()
        assert not turn.wait_gone(within=1.5)
        turn.chunk(b"".join(frames("late")))
        turn.last()

    server.script = script
    assert front.ask(chat_body("early head", stream=True)).body == b"".join(frames("late"))


def test_f5_a_body_that_never_begins_is_a_time_out(front: Proxy, server: Stub) -> None:
    def script(turn: Turn) -> None:
        turn.stream()
        turn.wait_gone()

    server.script = script
    reply = front.ask(chat_body("never", stream=True))
    assert reply.cut
    assert json.loads(reply.body.removeprefix(b"data: "))["error"]["code"] == "upstream_timeout"


def test_an_answer_has_a_total_time(cache_dir: Path, env: dict[str, str]) -> None:
    """A stream that drips for ever never trips the limit between two reads."""

    def script(turn: Turn) -> None:
        turn.stream()
        while not turn.wait_gone(within=0.1):
            turn.sock.settimeout(5)
            turn.chunk(frames("x")[0])

    with stub() as server, proxy(env | settings(cache_dir, server.url, LLMPOD_TOTAL_SECONDS="1")) as front:
        server.script = script
        reply = front.ask(chat_body("drip", stream=True))
    assert reply.cut
    error = json.loads(reply.body.rstrip().rpartition(b"data: ")[2])["error"]
    assert (error["code"], "longer than 1 s" in error["message"]) == ("upstream_timeout", True)


def _namespaces() -> bool:
    """Whether this user may have a file system view of its own."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def moving(tmp_path: Path, cache_dir: Path, env: dict[str, str]) -> Iterator[tuple[Proxy, Path, Stub, Stub]]:
    """A proxy whose model server has a name, the file that says where it is, and two servers on one port."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost moving.test\n")
    bind = f'mount --bind "{hosts}" /etc/hosts && exec "$@"'
    argv: list[str | Path] = ["unshare", "-m", "sh", "-c", bind, "sh", PYTHON, SCRIPT]
    with stub() as old, stub(host="127.0.0.2", port=old.port) as new:
        environ = env | settings(cache_dir, f"http://moving.test:{old.port}", LLMPOD_ALLOW_PLAIN_HTTP="true")
        with proxy(environ, argv=argv) as front:
            yield front, hosts, old, new


@pytest.mark.skipif(not _namespaces(), reason="needs the right to make mount namespaces (root)")
def test_f8_a_name_that_moves_is_looked_up_for_each_new_connection(
    moving: tuple[Proxy, Path, Stub, Stub],
) -> None:
    front, hosts, old, new = moving
    assert front.ask(chat_body("before the move")).status == 200
    with hosts.open("r+") as file:  # in place: the bound file must stay the same one
        file.write("127.0.0.2 localhost moving.test\n")
    old.close_connections()
    assert front.ask(chat_body("after the move")).status == 200
    assert [len(server.turns) for server in (old, new)] == [1, 1]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_f10_an_error_of_the_server_passes_once_and_is_not_stored(
    front: Proxy, server: Stub, status: int
) -> None:
    body = b'{"error": {"message": "busy", "type": "server_error", "code": null}}'
    server.script = lambda turn: turn.reply(body, "retry-after: 9", status=f"{status} X")
    reply = front.ask(chat_body(f"error {status}"))
    assert (reply.status, reply.body, reply.headers["retry-after"]) == (status, body, "9")
    assert len(server.turns) == 1
    assert not stored(front, f"error {status}")


def test_f10_the_body_of_an_error_is_bounded(front: Proxy, server: Stub) -> None:
    server.script = lambda turn: turn.reply(b"x" * 2**21, status="500 X", kind="text/plain")
    reply = front.ask(chat_body("a long error"))
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_invalid")


def test_f10_an_error_without_end_is_cut(front: Proxy, server: Stub) -> None:
    """It once was gathered for as long as it came, to be found too long at its end."""
    sent, cut = 0, threading.Event()

    def script(turn: Turn) -> None:
        nonlocal sent
        turn.head("content-type: text/plain", "transfer-encoding: chunked", status="500 X")
        try:
            while sent < 2**26:
                turn.chunk(b"x" * 2**16)
                sent += 2**16
        except OSError:
            cut.set()

    server.script = script
    reply = front.ask(chat_body("an error without end"))
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_invalid")
    assert cut.wait(5)
    assert sent < 2**25


@pytest.mark.parametrize("stream", [True, False])
def test_f11_too_many_requests_reach_the_client_unchanged(front: Proxy, server: Stub, stream: object) -> None:
    """Clients obey it to 0.1 s (measured), so it is theirs to read; we do not ask again by ourselves."""
    body = b'{"error":{"message":"slow down","type":"rate_limit_error","param":null,"code":"rate"}}'
    fields = {
        "retry-after": "3.5",
        "retry-after-ms": "3500",
        "x-ratelimit-remaining-requests": "0",
        "x-should-retry": "true",
    }
    lines = [f"{name}: {value}" for name, value in fields.items()]
    server.script = lambda turn: turn.reply(body, *lines, status="429 Too Many Requests")
    reply = front.ask(chat_body("slow down", model=f"busy-{stream}", **({"stream": True} if stream else {})))
    assert (reply.status, reply.body) == (429, body)
    assert fields.items() <= reply.headers.items()
    assert len(server.turns) == 1


def test_f12_a_gateway_that_gave_up_is_a_504_with_a_hint(front: Proxy, server: Stub) -> None:
    server.script = lambda turn: turn.reply(b"<html>524</html>", status="524 X", kind="text/html")
    reply = front.ask(chat_body("524"))
    assert (reply.status, reply.json["error"]["code"]) == (504, "upstream_524")
    assert "UPSTREAM_STREAM" in reply.json["error"]["message"]
    assert reply.json["error"]["original"] == "<html>524</html>"


def test_f13_a_page_instead_of_an_answer_is_refused(front: Proxy, server: Stub) -> None:
    server.script = lambda turn: turn.reply(b"<html>Sign in</html>", kind="text/html; charset=utf-8")
    reply = front.ask(chat_body("sign in"))
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_invalid")
    assert b"Sign in" not in reply.body


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", chat("\xff").replace(b"\\u00ff", b"\xff")),
        ("application/json; charset=utf-16", chat("x").decode().encode("utf-16")),
        ("application/json", b"[" * 100_000),
        ("application/json", b""),
    ],
    ids=["invalid UTF-8", "another charset", "deep", "empty"],
)
def test_f13_what_cannot_be_read_passes_and_is_not_stored(
    front: Proxy, server: Stub, kind: str, body: bytes
) -> None:
    server.script = lambda turn: turn.reply(body, kind=kind)
    reply = front.ask(chat_body("odd"))
    assert (reply.status, reply.body, reply.cut) == (200, body, False)
    assert not stored(front, "odd")


def test_f13_an_event_without_end_is_cut(front: Proxy, server: Stub) -> None:
    """One line of any length: what is kept of it is bounded."""
    sent: list[int] = []

    def script(turn: Turn) -> None:
        turn.stream()
        turn.chunk(b"data: ")
        for _ in range(64):
            turn.chunk(b"x" * 2**20)
            sent.append(1)

    server.script = script
    reply = front.ask(chat_body("one long line", stream=True))
    assert reply.cut
    assert reply.body.endswith(b'"code": "upstream_invalid"}}\n\n')
    assert 16 <= len(reply.body) >> 20 < 32
    assert len(sent) < 64


def test_f58_a_client_that_says_it_is_done_still_gets_what_is_stored(front: Proxy, server: Stub) -> None:
    """It shuts its side after several requests. (For what must be waited for, that looks like having left.)"""
    wanted = [front.ask(chat_body(f"half closed {n}")).body for n in range(3)]
    with front.client() as client:
        client.sock.sendall(b"".join(raw_chat(f"half closed {n}") for n in range(3)))
        client.sock.shutdown(1)
        assert [client.reply().body for _ in range(3)] == wanted


def test_f60_everybody_is_told_when_nothing_runs(
    state_dir: Path, cache_dir: Path, env: dict[str, str]
) -> None:
    """200 at once during a cold start: refused in OpenAI's shape with a time, and none is left behind."""
    environ = env | settings(cache_dir, LLMPOD_STATE=str(state_dir / "pod_state.json"), LLMPOD_MODELS="org/m")
    with proxy(environ) as front, ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda n: front.ask(chat_body(f"cold {n}")), range(200)))
        assert {(r.status, r.json["error"]["code"]) for r in replies} == {(503, "model_not_ready")}
        assert all(int(reply.headers["retry-after"]) > 0 for reply in replies)
        assert front.metrics()["requests_in_flight"] == 0


def test_f63_an_entry_that_is_evicted_while_it_is_read_arrives_whole(server: Stub, cache_dir: Path) -> None:
    big = chat("x" * 7_000_000)  # more than two sockets hold: most of it stays with the proxy
    server.script = lambda turn: turn.reply(big if b"big" in turn.body else chat("small"))
    environ = settings(cache_dir, server.url, MAX_CACHE_SIZE="2")
    with proxy({**_base(), **environ}) as front, front.client() as slow:
        assert front.ask(chat_body("big")).body == big
        slow.send("POST", CHAT, json.dumps(chat_body("big")).encode())
        response = slow.open_reply()
        assert response.headers["x-cache"] == "HIT"
        for number in range(5):
            front.ask(chat_body(f"other {number}"))
        assert not stored(front, "big")
        assert response.read() == big
