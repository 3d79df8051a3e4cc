"""A batch of embeddings, taken apart and put together again: order, numbers and tokens."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpod.cache.items import batch_of, put_together, taken_apart

numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4)
vectors = st.lists(numbers | st.text(max_size=8), min_size=2, max_size=6)


def document(found: list[Any], usage: Any, **more: Any) -> dict[str, Any]:
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(found)]
    return {"object": "list", "data": data, "model": "m", "usage": usage, **more}


def parts_of(answer: bytes, inputs: list[Any]) -> list[bytes]:
    parts = taken_apart(answer, inputs)
    assert parts is not None
    return parts


@given(vectors, st.integers(0, 10_000), st.integers(0, 3), st.data())
def test_together_again_it_is_the_same_answer(
    found: list[Any], tokens: int, indent: int, data: st.DataObject
) -> None:
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "prompt_tokens_details": None}
    whole = document(found, usage, id="embd-1", created=7)
    whole["data"] = data.draw(st.permutations(whole["data"]))  # the index says which is which, not the place
    inputs = [data.draw(st.text(max_size=30)) for _ in found]
    answer = json.dumps(whole, indent=indent or None).encode()
    parts = parts_of(answer, inputs)
    for place, part in enumerate(parts):
        alone = json.loads(part)
        assert [item["index"] for item in alone["data"]] == [0]
        assert alone["data"][0]["embedding"] == found[place]
        assert alone["usage"]["prompt_tokens"] >= 0
    again = json.loads(put_together(parts, like=answer))
    assert again == document(found, usage, id="embd-1", created=7)


def test_numbers_keep_their_spelling() -> None:
    one, other = b"[1.10, -0.000e5,1E3]", b"[0.1234567890123456789]"
    spelled = b'{"data":[{"index":0,"embedding":%b},{"index":1,"embedding":%b}]}' % (one, other)
    parts = parts_of(spelled, ["a", "b"])
    assert one in parts[0]
    both = put_together(parts, like=spelled)
    assert one in both
    assert other in both


def test_tokens_are_shared_out_by_length_and_none_is_lost() -> None:
    answer = json.dumps(document([[1], [2], [3]], {"prompt_tokens": 10, "total_tokens": 10})).encode()
    parts = parts_of(answer, ["a", "b" * 7, "cc"])
    shares = [json.loads(part)["usage"]["prompt_tokens"] for part in parts]
    assert shares == [1, 7, 2]
    some = json.loads(put_together([parts[2], parts[1]], like=answer))
    assert some["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert [item["embedding"] for item in some["data"]] == [[3], [2]]
    assert [item["index"] for item in some["data"]] == [0, 1]


def test_counts_of_other_kinds_are_not_added() -> None:
    odd = [{"n": 2, "x": "a", "y": None}, {"n": "3", "x": "b"}, {"y": 1}]
    parts = [json.dumps(document([[1]], usage)).encode() for usage in odd]
    together = json.loads(put_together(parts, like=parts[0]))
    assert together["usage"] == {"n": 2, "x": "a", "y": None}
    silent = json.dumps(document([[1]], None)).encode()
    assert json.loads(put_together([parts[0], silent], like=silent))["usage"] is None


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"data": {}}',
        b'{"data": []}',
        b'{"data": [{"index": 0}]}',
        b'{"data": [{"index": 0}, {"index": 0}]}',
        b'{"data": [{"index": 1}, {"index": 2}]}',
        b'{"data": [{"index": 0}, {"embedding": []}]}',
        b'{"data": [{"index": 0}, {"index": "x"}]}',
        b'{"data": [{"index": 0}, {"index": 1}], "usage": }',
        b'{"data": [{"index": 0}, 1]}',
        b"\xff",
    ],
)
def test_an_answer_that_does_not_say_which_is_which_stays_whole(answer: bytes) -> None:
    assert taken_apart(answer, ["a", "b"]) is None


def test_answers_cut_anywhere_are_never_taken_apart() -> None:
    answer = json.dumps(document([[0.5, 1], "AAAA"], {"prompt_tokens": 2, "total_tokens": 2})).encode()
    assert all(taken_apart(answer[:end], ["a", "b"]) is None for end in range(len(answer)))
    dice = random.Random(1)
    for _ in range(300):
        damaged = bytearray(answer)
        damaged[dice.randrange(len(answer))] = dice.randrange(256)
        taken_apart(bytes(damaged), ["a", "b"])  # whatever it is: no other exception


@pytest.mark.parametrize(
    ("given_input", "is_batch"),
    [
        (["a", "b"], True),
        ([[1, 2], [3]], True),
        ([[], [3]], True),
        ("a", False),
        (["a"], False),
        ([1, 2], False),
        (["a", [1]], False),
        ([{"text": "a"}, {"text": "b"}], False),
        ([["a"], ["b"]], False),
        (None, False),
    ],
)
def test_what_a_batch_is(given_input: object, *, is_batch: bool) -> None:
    found = batch_of(json.dumps({"model": "m", "input": given_input}).encode())
    assert (found is not None) is is_batch
    assert batch_of(b"[1]") is batch_of(b"{") is None
