"""PREWARM_CACHE: given questions are asked once a model is ready, and answered from the cache afterwards."""

import json
from pathlib import Path

import pytest

from llmpod.config import KEYS_FILE
from tests.proxy.conftest import _base
from tests.proxy.front import chat_body, proxy, settings
from tests.proxy.keys import KEYS, entry, write_keys
from tests.proxy.stub import Stub
from tests.support.net import free_port
from tests.support.wait import eventually


def test_given_questions_are_hits_for_the_first_client(server: Stub, cache_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    lines = [
        json.dumps(chat_body("one")),
        "",
        "{no json",
        json.dumps({"path": "/elsewhere", "body": {}}),
        json.dumps({"path": "/v1/\a", "body": {}}),
        '{"temperature": NaN}',
        json.dumps({"path": "/v1/chat/completions", "body": chat_body("two")}),
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    environ = settings(cache_dir, server.url, PORT=str(free_port()), PREWARM_CACHE=str(file))
    with proxy({**_base(), **environ}) as front:
        done = eventually(lambda: [line for line in front.logs() if line["event"] == "prewarmed"])
        assert (done[0]["asked"], done[0]["failed"]) == (4, 2)
        bad = [line["line"] for line in front.logs() if line["event"] == "prewarm_bad_line"]
        assert bad == [3, 4]
        asked = len(server.turns)
        assert [front.ask(chat_body(text)).cache for text in ("one", "two", "three")] == [
            "HIT",
            "HIT",
            "MISS",
        ]
        assert len(server.turns) == asked + 1


def test_a_missing_file_is_said_and_harms_nothing(server: Stub, cache_dir: Path, tmp_path: Path) -> None:
    environ = settings(cache_dir, server.url, PREWARM_CACHE=str(tmp_path / "none"))
    with proxy({**_base(), **environ}) as front:
        eventually(lambda: [line for line in front.logs() if line["event"] == "prewarm_unreadable"])
        assert front.ask(chat_body()).status == 200


@pytest.mark.parametrize("shared", ["true", "false"])
def test_callers_with_keys_are_served_it_or_nothing_is_spent_on_it(
    server: Stub, cache_dir: Path, tmp_path: Path, shared: str
) -> None:
    """What is asked beforehand lies in a part of the cache that is nobody's, unless all share."""
    file, keys = tmp_path / "questions.jsonl", tmp_path / KEYS_FILE
    file.write_text(json.dumps(chat_body("keyed")))
    write_keys(keys, entry("infer"))
    more = {"LLMPOD_AUTH": "keys", "LLMPOD_KEYS_FILE": str(keys), "CACHE_SHARED": shared}
    environ = settings(cache_dir, server.url, PORT=str(free_port()), PREWARM_CACHE=str(file), **more)
    with proxy({**_base(), **environ}) as front:
        said = "prewarmed" if shared == "true" else "prewarm_unshared"
        eventually(lambda: [line for line in front.logs() if line["event"] == said])
        assert len(server.turns) == (shared == "true")
        reply = front.ask(chat_body("keyed"), headers={"Authorization": f"Bearer {KEYS['infer']}"})
        assert reply.cache == ("HIT" if shared == "true" else "MISS")


def test_it_uses_up_nobodys_limits(server: Stub, cache_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(json.dumps(chat_body(f"question {number}")) for number in range(6)))
    more = {"LLMPOD_REQUESTS_PER_MINUTE": "3", "LLMPOD_TOKENS_PER_MINUTE": "6"}
    environ = settings(cache_dir, server.url, PORT=str(free_port()), PREWARM_CACHE=str(file), **more)
    with proxy({**_base(), **environ}) as front:
        (done,) = eventually(lambda: [line for line in front.logs() if line["event"] == "prewarmed"])
        assert (done["asked"], done["failed"]) == (6, 0)
        asked = [front.ask(chat_body(f"question {number}")) for number in (0, 1, 2, 3)]
        assert [reply.status for reply in asked] == [200, 200, 200, 429]
