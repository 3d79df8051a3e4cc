"""The log of a proxy that somebody started at a terminal: in words there, JSON for everybody else."""

import json
from pathlib import Path

from llmpod.observe.words import in_words
from tests.proxy.front import SCRIPT, Client, chat_body
from tests.proxy.stub import plain, stub
from tests.support.net import free_port
from tests.support.process import PYTHON
from tests.support.screen import terminal


def test_at_a_terminal_the_log_is_in_words(env: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    with stub() as server:
        server.script = plain
        environ = {**env, "RUNPOD_ENDPOINT": server.url, "CACHE_DIR": str(tmp_path / "c"), "PORT": str(port)}
        with terminal([PYTHON, str(SCRIPT)], environ) as screen:
            screen.until(f"listening  url: http://127.0.0.1:{port}/v1")
            with Client(port) as client:
                client.send("POST", "/v1/chat/completions", json.dumps(chat_body("hi")).encode())
                assert client.reply().status == 200
            screen.until("request POST /v1/chat/completions 200 MISS  reason: new  ms: ")
            assert '"ts"' not in screen.shown


def test_nothing_in_it_moves_the_cursor() -> None:
    path = "/v1/\x1b[2J\u202etxt"
    record = {
        "ts": "2026-11-22T03:04:05.678Z",
        "level": "warning",
        "event": "request",
        "path": path,
        "status": 404,
    }
    first, second = in_words(json.dumps(record).encode() + b"\nno \x1b[31mrecord\n").decode().splitlines()
    assert first.isprintable()
    assert "WARNING request /v1/" in first
    assert second == "no record"
