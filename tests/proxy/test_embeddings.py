"""Batches of embeddings: only what is not stored is asked for, and the answer is that to the whole batch."""

import base64
import json
import struct
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from tests.proxy.front import Proxy, Reply
from tests.proxy.stub import Stub, Turn

PATH = "/v1/embeddings"


def vector(item: Any) -> list[float]:
    return [len(item) + 0.1, float(sum(item) if isinstance(item, list) else sum(map(ord, item)))]


def embed(turn: Turn) -> None:
    asked = turn.json
    inputs = asked["input"]
    tokens = sum(len(item) for item in inputs)
    data = []
    for place, item in enumerate(inputs):
        found: Any = vector(item)
        if asked.get("encoding_format") == "base64":
            found = base64.b64encode(struct.pack("<2f", *found)).decode()
        data.append({"object": "embedding", "index": place, "embedding": found})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
    turn.reply(
        json.dumps({"id": "e1", "object": "list", "data": data, "model": "e", "usage": usage}).encode()
    )


def ask(front: Proxy, inputs: Sequence[Any], *, control: str = "", **more: Any) -> Reply:
    body = {"model": "e", "input": inputs, **more}
    return front.ask(body, path=PATH, headers={"Cache-Control": control} if control else {})


def asked(server: Stub) -> list[Any]:
    return [turn.json["input"] for turn in server.turns]


@pytest.fixture(autouse=True)
def _embeds(server: Stub) -> None:
    server.script = embed


def right(reply: Reply, inputs: Sequence[Any]) -> bool:
    document = reply.json
    items = document["data"]
    vectors = [item["embedding"] for item in items] == [vector(item) for item in inputs]
    places = [item["index"] for item in items] == list(range(len(inputs)))
    tokens = document["usage"]["prompt_tokens"] == sum(len(item) for item in inputs)
    return reply.status == 200 and vectors and places and tokens and document["model"] == "e"


def test_only_what_is_missing_is_asked_for(front: Proxy, server: Stub) -> None:
    first = ask(front, ["one", "three", "fifteen"])
    mixed = ask(front, ["five", "three", "seven", "one"])
    assert right(first, ["one", "three", "fifteen"])
    assert right(mixed, ["five", "three", "seven", "one"])
    assert asked(server) == [["one", "three", "fifteen"], ["five", "seven"]]
    assert (mixed.cache, mixed.headers["x-cache-reason"]) == ("MISS", "2 of 4 inputs stored")


def test_what_is_all_stored_is_not_asked_for(front: Proxy, server: Stub) -> None:
    ask(front, ["alpha", "beta", "gamma"])
    turned = ask(front, ["gamma", "alpha"])
    assert right(turned, ["gamma", "alpha"])
    assert (turned.cache, turned.headers["x-cache-reason"]) == ("HIT", "all 2 inputs stored")
    assert turned.headers["age"] == "0"
    assert right(ask(front, ["beta"]), ["beta"]), "also one alone"
    again = ask(front, ["gamma", "alpha"])
    assert (again.cache, again.headers["x-cache-reason"], again.json) == ("HIT", "stored", turned.json)
    assert len(server.turns) == 1


def test_the_whole_batch_again_is_byte_for_byte(front: Proxy, server: Stub) -> None:
    replies = [ask(front, ["w1", "w2"]) for _ in range(2)]
    assert [reply.cache for reply in replies] == ["MISS", "HIT"]
    assert replies[0].body == replies[1].body


def test_lists_of_tokens_and_base64(front: Proxy, server: Stub) -> None:
    ask(front, [[1, 2], [3]])
    assert right(ask(front, [[3], [4, 5, 6]]), [[3], [4, 5, 6]])
    assert asked(server)[1] == [[4, 5, 6]]
    coded = ask(front, [[3], [4, 5, 6]], encoding_format="base64")
    assert coded.cache == "MISS", "another question"
    again = ask(front, [[4, 5, 6], [7]], encoding_format="base64")
    assert asked(server)[-1] == [[7]]
    assert again.json["data"][0]["embedding"] == coded.json["data"][1]["embedding"]


def test_two_who_lack_the_same_share_one_call(front: Proxy, server: Stub) -> None:
    ask(front, ["j1", "j2"])
    go_on = threading.Event()

    def slowly(turn: Turn) -> None:
        assert go_on.wait(10)
        embed(turn)

    server.script = slowly
    bodies = [["j1", "j3"], ["j3", "j2"]]
    with front.client() as one, front.client() as other:
        for client, inputs in zip((one, other), bodies, strict=True):
            body = json.dumps({"model": "e", "input": inputs}).encode()
            client.send("POST", PATH, body)
            server.wait_turns(2)
        # whoever comes later is answered after both were taken up: one loop, in its order
        assert ask(front, ["j2", "j1"]).cache == "HIT"
        go_on.set()
        replies = [one.reply(), other.reply()]
    assert all(right(reply, inputs) for reply, inputs in zip(replies, bodies, strict=True))
    assert replies[1].cache == "JOIN"


def test_the_same_input_twice(front: Proxy, server: Stub) -> None:
    assert right(ask(front, ["twin", "twin", "other"]), ["twin", "twin", "other"])
    assert right(ask(front, ["new", "twin", "twin"]), ["new", "twin", "twin"])
    assert asked(server)[1] == ["new"]


def test_what_the_client_says_holds_for_the_parts(front: Proxy, server: Stub) -> None:
    ask(front, ["s1", "s2"], control="no-store")
    assert ask(front, ["s1"]).cache == "MISS"
    ask(front, ["c1", "c2"])
    ask(front, ["c1", "c9"], control="max-age=0")
    assert asked(server)[-1] == ["c1", "c9"]
    assert ask(front, ["c1", "c3"], control="no-cache").headers["x-cache-reason"] == "no-cache"
    assert asked(server)[-1] == ["c1", "c3"]
    assert ask(front, ["c2", "c3"], control="only-if-cached").cache == "HIT"
    missing = ask(front, ["c2", "c4"], control="only-if-cached")
    assert (missing.status, missing.json["error"]["code"]) == (504, "not_cached")


def test_an_error_for_what_is_missing_is_the_answer(front: Proxy, server: Stub) -> None:
    ask(front, ["good", "fine"])
    server.script = lambda turn: turn.reply(b'{"error": {"message": "too long"}}', status="400 Bad Request")
    failed = ask(front, ["good", "bad"])
    assert (failed.status, failed.json["error"]["message"]) == (400, "too long")
    server.script = lambda turn: turn.reply(b'{"object": "list", "data": []}')
    odd = ask(front, ["good", "odd"])
    assert (odd.status, odd.json["error"]["code"]) == (502, "upstream_invalid")
    server.script = embed
    assert right(ask(front, ["good", "odd"]), ["good", "odd"])


@pytest.mark.parametrize("odd", [b'{"object": "list"}', b'{"data": [{"embedding": [1]}]}', b'{"data": 7}'])
def test_what_was_stored_in_another_shape_is_asked_for_again(front: Proxy, server: Stub, odd: bytes) -> None:
    alone = f"alone {len(odd)}"
    server.script = lambda turn: turn.reply(odd)
    assert ask(front, [alone]).body == odd
    server.script = embed
    assert right(ask(front, [alone, "beside"]), [alone, "beside"])
    assert alone in asked(server)[-1]


def test_a_batch_that_would_fill_the_cache_stays_whole(front: Proxy, server: Stub) -> None:
    inputs = [f"item {number}" for number in range(126)]  # more than an eighth of 1000
    assert [ask(front, inputs).cache for _ in range(2)] == ["MISS", "HIT"]
    assert ask(front, inputs[:2]).cache == "MISS"
    assert right(ask(front, inputs), inputs)


@pytest.mark.parametrize("given_input", ["text", [1, 2, 3]])
def test_anything_else_is_as_it_was(front: Proxy, server: Stub, given_input: Any) -> None:
    server.script = lambda turn: turn.reply(b'{"data": [{"index": 0, "embedding": [0.5]}]}')
    assert [ask(front, given_input).cache for _ in range(2)] == ["MISS", "HIT"]


def test_large_batches_take_the_same_way(front: Proxy, server: Stub) -> None:
    inputs = [f"{number} " + "x" * 9000 for number in range(60)]  # past the size that is parsed in a thread
    assert right(ask(front, inputs), inputs)
    assert right(ask(front, [*inputs[30:], "last"]), [*inputs[30:], "last"])
    assert asked(server)[-1] == ["last"]
