"""What is stored, what is not, in which form it comes back, and what the answer says about it."""

import json

import pytest

from tests.proxy.front import Proxy, chat_body
from tests.proxy.stub import Stub, Turn, chat, frames


def events(body: bytes) -> list[str]:
    return [part.removeprefix("data: ") for part in body.decode().split("\n\n") if part]


def text_of(body: bytes) -> str:
    parts = [json.loads(event) for event in events(body) if event != "[DONE]"]
    return "".join(c["delta"].get("content") or "" for part in parts for c in part["choices"])


def test_second_time_from_the_cache(front: Proxy, server: Stub) -> None:
    first, second = front.ask(chat_body("twice")), front.ask(chat_body("twice"))
    assert (first.status, first.cache, second.cache) == (200, "MISS", "HIT")
    assert first.body == second.body == chat("you said twice")
    assert len(server.turns) == 1
    assert second.headers["age"] == "0"
    assert second.headers["etag"].startswith('"')
    assert second.headers["x-cache-reason"] == "stored"
    assert second.headers["content-type"] == "application/json"


def test_order_and_white_space_do_not_matter(front: Proxy, server: Stub) -> None:
    front.ask(b'{"model":"m","messages":[{"role":"user","content":"order"}]}')
    again = front.ask(b'{ "messages": [{"content":"order", "role":"user"}],\n "model":"m" }')
    assert again.cache == "HIT"


def test_another_question_is_another_answer(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("one", temperature=0))
    assert front.ask(chat_body("one", temperature=1)).cache == "MISS"
    assert front.ask(chat_body("two", temperature=0)).cache == "MISS"


def test_a_stored_stream_comes_back_byte_for_byte(front: Proxy, server: Stub) -> None:
    live, hit = (front.ask(chat_body("replay me", stream=True)) for _ in range(2))
    assert (live.cache, hit.cache) == ("MISS", "HIT")
    assert live.body == hit.body == b"".join(frames("you", "said", "replay", "me"))
    assert hit.headers["content-type"].startswith("text/event-stream")
    assert "transfer-encoding" not in hit.headers


def test_a_stored_document_serves_a_stream(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("both ways"))
    plain = front.ask(chat_body("both ways", stream=True))
    counted = front.ask(chat_body("both ways", stream=True, stream_options={"include_usage": True}))
    assert plain.cache == counted.cache == "HIT"
    assert text_of(plain.body) == "you said both ways"
    assert events(plain.body)[-1] == "[DONE]"
    assert "usage" not in json.loads(events(plain.body)[-2])
    assert json.loads(events(counted.body)[-2])["usage"]["total_tokens"] == 3
    assert len(server.turns) == 1


def test_a_stored_stream_with_usage_serves_everybody(front: Proxy, server: Stub) -> None:
    usage = {"include_usage": True}
    front.ask(chat_body("for all", stream=True, stream_options=usage))
    document = front.ask(chat_body("for all"))
    plain = front.ask(chat_body("for all", stream=True))
    assert document.cache == plain.cache == "HIT"
    assert document.json["choices"][0]["message"]["content"] == "yousaidforall"
    assert document.json["usage"]["total_tokens"] == 3
    assert b'"usage"' not in plain.body
    assert len(server.turns) == 1


def test_a_stored_stream_without_usage_cannot_serve_those_who_need_it(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("uncounted", stream=True))
    counted = front.ask(chat_body("uncounted", stream=True, stream_options={"include_usage": True}))
    assert (counted.cache, b'"total_tokens"' in counted.body) == ("MISS", True)
    front.ask(chat_body("uncounted 2", stream=True))
    assert front.ask(chat_body("uncounted 2")).cache == "MISS"
    assert len(server.turns) == 4
    assert front.ask(chat_body("uncounted 2", stream=True)).cache == "HIT"


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("abort", lambda t: t.reply(chat("cut", finish="abort"))),
        ("no finish reason", lambda t: t.reply(chat("cut").replace(b'"stop"', b"null"))),
        ("error inside", lambda t: t.reply(b'{"error": {"message": "no"}}')),
        ("cookie", lambda t: t.reply(chat("c"), "set-cookie: a=b")),
        ("status 500", lambda t: t.reply(chat("c"), status="500 Oops")),
        ("not JSON", lambda t: t.reply(b"Hello")),
    ],
)
def test_what_is_never_stored(front: Proxy, server: Stub, name: str, reply: object) -> None:
    server.script = reply  # type: ignore[assignment]  # a list of lambdas has no better type
    for _ in range(2):
        assert front.ask(chat_body(f"never: {name}")).cache == "MISS"
    assert len(server.turns) == 2


def test_a_cookie_never_reaches_the_client(front: Proxy, server: Stub) -> None:
    server.script = lambda t: t.reply(
        chat("c"), "set-cookie: a=b", "x-request-id: r1", "server: x", "openai-model: y"
    )
    reply = front.ask(chat_body("headers"))
    assert {"set-cookie", "server"}.isdisjoint(reply.headers)
    assert (reply.headers["x-request-id"], reply.headers["openai-model"]) == ("r1", "y")
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_an_aborted_stream_is_not_stored_though_it_ends_cleanly(front: Proxy, server: Stub) -> None:
    def script(turn: Turn) -> None:
        turn.stream()
        for frame in frames("half", finish="abort"):
            turn.chunk(frame)
        turn.last()

    server.script = script
    for _ in range(2):
        reply = front.ask(chat_body("aborted", stream=True))
        assert (reply.cache, reply.cut) == ("MISS", False)


@pytest.mark.parametrize(
    ("control", "cache", "calls"),
    [
        ("no-store", "BYPASS", 2),
        ("no-cache", "MISS", 2),
        ("max-age=0", "MISS", 2),
        ("max-age=60", "HIT", 1),
        ("bogus", "HIT", 1),
    ],
)
def test_the_client_may_say_what_it_wants(
    front: Proxy, server: Stub, control: str, cache: str, calls: int
) -> None:
    front.ask(chat_body(f"control {control}"))
    reply = front.ask(chat_body(f"control {control}"), headers={"Cache-Control": control})
    assert (reply.cache, len(server.turns)) == (cache, calls)


def test_only_if_cached(front: Proxy, server: Stub) -> None:
    reply = front.ask(chat_body("not there"), headers={"Cache-Control": "only-if-cached"})
    assert (reply.status, reply.json["error"]["code"]) == (504, "not_cached")
    assert not server.turns


def test_no_store_leaves_nothing_behind(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("secret"), headers={"Cache-Control": "no-store"})
    assert front.ask(chat_body("secret")).cache == "MISS"


def test_callers_with_different_keys_do_not_share(front: Proxy, server: Stub) -> None:
    mine, yours = {"Authorization": "Bearer sk-mine"}, {"Authorization": "Bearer sk-yours"}
    assert front.ask(chat_body("private"), headers=mine).cache == "MISS"
    assert front.ask(chat_body("private"), headers=yours).cache == "MISS"
    assert front.ask(chat_body("private"), headers=mine).cache == "HIT"
    assert front.ask(chat_body("private")).cache == "MISS"
    assert server.turns[0].headers["authorization"] == "Bearer sk-mine"


def test_embeddings_are_stored(front: Proxy, server: Stub) -> None:
    answer = b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}],"model":"m"}'
    server.script = lambda t: t.reply(answer)
    body = {"model": "m", "input": "text"}
    replies = [front.ask(body, path="/v1/embeddings") for _ in range(2)]
    assert [r.cache for r in replies] == ["MISS", "HIT"]
    assert replies[1].body == answer


def test_large_bodies_take_the_same_way(front: Proxy, server: Stub) -> None:
    server.script = lambda t: t.reply(chat("x" * 300_000))
    body = chat_body("y" * 400_000)
    replies = [front.ask(body) for _ in range(3)]
    assert [r.cache for r in replies] == ["MISS", "HIT", "HIT"]
    assert replies[0].body == replies[2].body
    streams = [front.ask(body | {"stream": True}) for _ in range(2)]
    assert [text_of(r.body) for r in streams] == ["x" * 300_000] * 2


def test_other_paths_pass_and_say_why(front: Proxy, server: Stub) -> None:
    reply = front.ask(b'{"a":1}', path="/v1/unheard/of")
    assert (reply.status, reply.cache) == (200, "BYPASS")
    assert reply.json == {"method": "POST", "target": "/v1/unheard/of", "body": '{"a":1}'}
    assert reply.headers["x-cache-reason"]


def test_a_hit_has_the_type_of_the_miss(front: Proxy, server: Stub) -> None:
    """One that a browser might run is opaque in both (T12)."""
    server.script = lambda turn: turn.reply(chat("type"), kind="image/svg+xml")
    replies = [front.ask(chat_body("type")) for _ in range(2)]
    assert [reply.cache for reply in replies] == ["MISS", "HIT"]
    assert {reply.headers["content-type"] for reply in replies} == {"application/octet-stream"}
