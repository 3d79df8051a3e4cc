"""What a model server may send, by chance: the client gets an answer or an error that names the server, never ours."""

import json
import random
import sys
from pathlib import Path

import pytest

from tests.fuzz.inputs import faulty, reshaped
from tests.proxy.front import chat_body, proxy, settings
from tests.proxy.stub import CHAT, Turn, chat, frames, stub

SEED = 20_261_121
SSE = b"".join(frames("a", "b", usage=True))
HEADS = (
    b"content-type: application/json",
    b"content-type: text/event-stream",
    b"content-type: text/html",
    b"",
)
PATHS = (CHAT, "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/no/such")
MANY = [
    pytest.param(300, id="sample"),
    pytest.param(100_000, id="long", marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
]


def framed(body: bytes, dice: random.Random) -> bytes:
    """A whole answer in one of the ways to frame it."""
    status = dice.choice(
        (b"200 OK", b"200 OK", b"200 OK", b"400 Bad", b"503 Busy", b"302 Found", b"304 Not", b"100 Go")
    )
    lines = [b"HTTP/1.1 " + status, dice.choice(HEADS)]
    match dice.randrange(3):
        case 0:
            lines.append(b"content-length: %d" % len(body))
        case 1:
            lines.append(b"transfer-encoding: chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        case _:
            lines.append(b"connection: close")
    return b"\r\n".join([line for line in lines if line]) + b"\r\n\r\n" + body


@pytest.mark.parametrize("count", MANY)
def test_whatever_the_model_server_sends(tmp_path: Path, env: dict[str, str], count: int) -> None:
    dice = random.Random(SEED)
    bodies = (
        chat("a"),
        SSE,
        b'{"error": {"message": "x"}}',
        b"<html>",
        b'{"data": [{"index": 0, "embedding": [1]}]}',
    )
    raw = b""

    def script(turn: Turn) -> None:
        turn.send(raw)
        turn.close()

    limits = {"LLMPOD_FIRST_BYTE_SECONDS": "5", "LLMPOD_IDLE_SECONDS": "5", "LOG_LEVEL": "INFO"}
    seen: dict[int, int] = {}
    with stub() as server, proxy(env | settings(tmp_path / "c", server.url, **limits)) as front:
        server.script = script
        for number in range(count):
            body = dice.choice(bodies)
            body = reshaped(body, dice) if dice.random() < 0.5 else body
            raw = framed(body, dice)
            raw = faulty(raw, dice, [raw]) if dice.random() < 0.4 else raw
            asked = chat_body(f"{number}", **({"stream": True} if dice.random() < 0.4 else {}))
            reply = front.ask(asked, path=dice.choice(PATHS))
            seen[reply.status] = seen.get(reply.status, 0) + 1
            if reply.status >= 500 and not reply.cut and reply.status != 503:
                error = json.loads(reply.body)["error"]
                assert str(error.get("code", "")).startswith("upstream_"), (raw, reply)
        assert front.get("/dashboard").status == 200
    sys.stdout.write(f"{seen}\n")
    assert seen[200] > count * 0.15
    assert seen[502] > count * 0.1
