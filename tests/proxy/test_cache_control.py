"""Conditions, pace, policy and modes: what a client or a configuration asks of the cache beyond a plain hit."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import openai
import pytest

from tests.proxy.front import Proxy, chat_body, proxy, settings
from tests.proxy.stub import CHAT, Stub, Turn, chat, frames
from tests.support.wait import eventually


@contextmanager
def running(env: dict[str, str], cache: Path, server: Stub, **more: str) -> Iterator[Proxy]:
    with proxy({**env, **settings(cache, server.url, **more)}) as front:
        yield front
        assert front.process.stop() == 0  # so that all is on disk


# --- If-None-Match -------------------------------------------------------------------------------------------
def test_who_has_the_answer_is_not_sent_it_again(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("known"))
    whole = front.ask(chat_body("known"))
    tag = whole.headers["etag"]
    for condition in (tag, f'"x", W/{tag}', "*"):
        again = front.ask(chat_body("known"), headers={"If-None-Match": condition})
        assert (again.status, again.cache, again.body) == (304, "HIT", b"")
        assert (again.headers["etag"], again.headers["age"]) == (tag, "0")
        assert "content-length" not in again.headers
    other = front.ask(chat_body("known"), headers={"If-None-Match": '"another"'})
    assert (other.status, other.body) == (200, whole.body)
    assert len(server.turns) == 1


def test_each_form_has_its_own_tag(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("forms"))
    document, stream = (front.ask(chat_body("forms", stream=value)) for value in (False, True))
    tags = document.headers["etag"], stream.headers["etag"]
    assert tags[0] != tags[1]
    assert tags[1].startswith("W/")
    crossed = front.ask(chat_body("forms", stream=True), headers={"If-None-Match": tags[0]})
    assert (crossed.status, crossed.body) == (200, stream.body)
    same = front.ask(chat_body("forms", stream=True), headers={"If-None-Match": tags[1]})
    assert same.status == 304


def test_a_condition_on_what_is_not_stored_asks_as_usual(front: Proxy, server: Stub) -> None:
    reply = front.ask(chat_body("not there yet"), headers={"If-None-Match": "*"})
    assert (reply.status, reply.cache) == (200, "MISS")


def test_the_connection_goes_on_after_a_304(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("next"))
    body = json.dumps(chat_body("next")).encode()
    with front.client() as client:
        for status in (304, 200):
            client.send("POST", CHAT, body, {"If-None-Match": "*"} if status == 304 else {})
            assert client.reply().status == status


# --- reasons -------------------------------------------------------------------------------------------------
def test_a_miss_says_why(front: Proxy, server: Stub) -> None:
    def reason(control: str = "", **more: object) -> str:
        headers = {"Cache-Control": control} if control else {}
        return front.ask(chat_body("reasons", **more), headers=headers).headers["x-cache-reason"]

    assert reason(stream=True) == "new"
    assert reason("no-cache", stream=True) == "no-cache"
    assert "max-age" in reason("max-age=0", stream=True)
    assert "token counts" in reason()
    assert reason() == "stored"


@pytest.mark.parametrize("control", ["max-age=" + "9" * 5000, "max-age=-1", 'max-age="60"', "max-age", ",,="])
def test_odd_directives_do_no_harm(front: Proxy, server: Stub, control: str) -> None:
    front.ask(chat_body("odd"))
    assert front.ask(chat_body("odd"), headers={"Cache-Control": control}).cache == "HIT"


def test_a_miss_of_only_if_cached_names_the_next_step(front: Proxy, server: Stub) -> None:
    reply = front.ask(chat_body("absent"), headers={"Cache-Control": "only-if-cached"})
    assert reply.status == 504
    assert "cache why" in reply.json["error"]["message"]
    assert reply.headers["x-should-retry"] == "false"
    front.ask(chat_body("absent"))
    assert front.ask(chat_body("absent"), headers={"Cache-Control": "only-if-cached"}).cache == "HIT"


# --- pace ----------------------------------------------------------------------------------------------------
def test_a_stored_stream_comes_at_the_pace_that_is_wanted(front: Proxy, server: Stub) -> None:
    live = front.ask(chat_body("a b c d e", stream=True))
    count = len(frames("you", "said", *"abcde"))
    body = json.dumps(chat_body("a b c d e", stream=True)).encode()
    with front.client() as client:
        started = monotonic()
        client.send("POST", CHAT, body, {"X-Cache-Pace": "20"})
        response = client.open_reply()
        first = response.read1(65536)
        assert first.count(b"\n\n") < count, "not all at once"
        rest = client.rest(response)
        spent = monotonic() - started
    assert first + rest.body == live.body
    assert rest.headers["x-cache"] == "HIT"
    assert spent > (count - 1) / 20 * 0.9
    assert front.ask(chat_body("a b c d e", stream=True), headers={"X-Cache-Pace": "0"}).body == live.body
    bad = front.ask(chat_body("a b c d e", stream=True), headers={"X-Cache-Pace": "fast"})
    assert (bad.status, "X-Cache-Pace" in bad.json["error"]["message"]) == (400, True)


def test_a_pace_for_all(env: dict[str, str], cache_dir: Path, server: Stub) -> None:
    with running(env, cache_dir, server, CACHE_PACE="20") as front:
        live = front.ask(chat_body("a b c", stream=True))
        started = monotonic()
        hit = front.ask(chat_body("a b c", stream=True))
        assert (hit.cache, hit.body, monotonic() - started > 0.2) == ("HIT", live.body, True)
        assert front.ask(chat_body("a b c", stream=True), headers={"X-Cache-Pace": "0"}).body == live.body


def test_who_leaves_a_paced_stream_leaves_nothing_behind(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("gone", stream=True))
    with front.client() as client:
        client.send("POST", CHAT, json.dumps(chat_body("gone", stream=True)).encode(), {"X-Cache-Pace": "1"})
        client.open_reply()
    assert front.ask(chat_body("gone", stream=True)).cache == "HIT"


# --- policy and modes ----------------------------------------------------------------------------------------
def test_policy_by_path(env: dict[str, str], cache_dir: Path, server: Stub) -> None:
    policy = json.dumps({CHAT: "deterministic", "/v1/embeddings": "off"})
    with running(env, cache_dir, server, CACHE_POLICY=policy) as front:
        warm = [front.ask(chat_body("x", temperature=1)) for _ in range(2)]
        assert [reply.cache for reply in warm] == ["BYPASS", "BYPASS"]
        assert "deterministic" in warm[0].headers["x-cache-reason"]
        assert [front.ask(chat_body("x", temperature=0)).cache for _ in range(2)] == ["MISS", "HIT"]
        assert [front.ask(chat_body("x", seed=7)).cache for _ in range(2)] == ["MISS", "HIT"]
        off = front.ask({"input": "x"}, path="/v1/embeddings")
        assert (off.cache, off.headers["x-cache-reason"]) == ("BYPASS", "cache_policy is off")
        assert [front.ask({"prompt": "x"}, path="/v1/detokenize").cache for _ in range(2)] == ["MISS", "HIT"]


def test_masks_can_be_switched_off(env: dict[str, str], cache_dir: Path, server: Stub) -> None:
    def ask(front: Proxy, second: int) -> str:
        return front.ask(chat_body(f"hi\nMessage time: 2026-11-21T08:05:{second}Z")).cache

    with running(env, cache_dir, server) as front:
        assert [ask(front, second) for second in (10, 11)] == ["MISS", "HIT"]
    with running(env, cache_dir, server, CACHE_MASKS="none") as front:
        assert [ask(front, second) for second in (10, 11, 10)] == ["MISS", "MISS", "HIT"]


def numbered(server: Stub, name: str) -> None:
    """Answers that tell which call they are of."""

    def script(turn: Turn) -> None:
        text = f"{name}{len(server.turns)}"
        if not turn.json.get("stream"):
            turn.reply(chat(text))
            return
        turn.stream()
        turn.chunk(b"".join(frames(text)))
        turn.last()

    server.turns.clear()
    server.script = script


def test_record_and_replay(env: dict[str, str], cache_dir: Path, server: Stub) -> None:
    numbered(server, "old")
    with running(env, cache_dir, server, CACHE_TTL_SECONDS="1") as front:
        front.ask(chat_body("q"))
        front.ask(chat_body("counted before"))
    numbered(server, "new")
    with running(env, cache_dir, server, CACHE_MODE="record", CACHE_TTL_SECONDS="1") as front:
        replies = [front.ask(chat_body("q", stream=stream)) for stream in (True, False, True)]
        assert [reply.cache for reply in replies] == ["MISS"] * 3
        assert replies[0].headers["x-cache-reason"] == "record"
        assert b"new1" in replies[0].body
        front.ask(chat_body("counted before", stream=True))
    server.close_connections()
    calls = len(server.turns)
    with running(env, cache_dir, server, CACHE_MODE="replay-only", CACHE_TTL_SECONDS="1") as front:
        replayed = front.ask(chat_body("q"), headers={"Cache-Control": "no-cache"})
        assert (replayed.cache, replayed.status) == ("HIT", 200), replayed.body
        assert replayed.json["choices"][0]["message"]["content"] == "new2"
        assert front.ask(chat_body("q", stream=True)).cache == "HIT"
        assert b"new4" in front.ask(chat_body("counted before", stream=True)).body
        miss = front.ask(chat_body("never asked"))
        assert (miss.status, miss.json["error"]["code"]) == (504, "not_cached")
        assert "only replays" in miss.json["error"]["message"]
        before = front.metrics()["requests_total"]
        url = f"http://127.0.0.1:{front.port}/v1"
        refused = pytest.raises(openai.APIStatusError, match="cache why")
        with openai.OpenAI(base_url=url, api_key="x", max_retries=5) as sdk, refused:
            sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "nor this"}])
        assert front.metrics()["requests_total"] == before + 1, "an SDK does not try that again"
        assert "cache why" in miss.json["error"]["message"]
        assert front.ask(b"{}", path="/v1/audio/speech").status == 504
        assert front.get("/v1/models").status == 200
        assert front.get("/v1/files").status == 504
    assert len(server.turns) == calls


def test_entries_expire_when_it_is_said(env: dict[str, str], cache_dir: Path, server: Stub) -> None:
    with running(env, cache_dir, server, CACHE_TTL_SECONDS="1") as front:
        front.ask(chat_body("short"))
        eventually(lambda: front.ask(chat_body("short")).cache == "MISS")
