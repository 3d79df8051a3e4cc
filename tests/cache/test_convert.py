import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpod.cache import FrameScanner, verdict
from llmpod.cache.assemble import assemble
from llmpod.cache.sse import iter_frames, parse_events
from llmpod.cache.unroll import strip_usage, unroll
from llmpod.errors import UpstreamInvalid
from tests.cache.answers import chat_answers, text_answers
from tests.cache.helpers import CHAT, TEXT, chunk, frames

CASES = st.tuples(st.just(CHAT), chat_answers) | st.tuples(st.just(TEXT), text_answers)


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def assembled(*chunks: dict[str, Any], path: str = CHAT) -> Any:
    return json.loads(assemble(frames(*chunks), path=path))


def message(*chunks: dict[str, Any]) -> Any:
    return assembled(*chunks)["choices"][0]["message"]


@given(CASES)
def test_unrolled_and_assembled_is_the_answer_again(case: tuple[str, dict[str, Any]]) -> None:
    path, answer = case
    stream = unroll(encode(answer), path=path, include_usage=True)
    assert json.loads(assemble(stream, path=path)) == answer


@given(CASES)
def test_an_unrolled_answer_is_a_complete_stream(case: tuple[str, dict[str, Any]]) -> None:
    path, answer = case
    for include_usage in (True, False):
        stream = unroll(encode(answer), path=path, include_usage=include_usage)
        found = verdict(stream, stream=True, path=path)
        assert (found.complete, found.reason, found.model) == (True, "", answer["model"])
        assert found.usage == (answer["usage"] if include_usage else None)
        assert FrameScanner(path).feed(stream)


@given(CASES)
def test_without_its_usage_frame_a_stream_is_the_one_that_did_not_ask(
    case: tuple[str, dict[str, Any]],
) -> None:
    path, answer = case
    asked = unroll(encode(answer), path=path, include_usage=True)
    plain = unroll(encode(answer), path=path, include_usage=False)
    assert strip_usage(asked) == plain
    assert strip_usage(plain) == plain


def recut(delta: dict[str, Any], sizes: list[int]) -> list[dict[str, Any]]:
    """One delta in several, its texts and arguments cut anywhere."""
    pieces: list[dict[str, Any]] = []
    rest = dict(delta)
    for size in sizes:
        piece: dict[str, Any] = {}
        for name in ("content", "reasoning", "refusal"):
            if isinstance(rest.get(name), str):
                piece[name], rest[name] = rest[name][:size], rest[name][size:]
        calls = rest.get("tool_calls") or []
        if calls and not calls[0].get("id"):
            arguments = calls[0]["function"]["arguments"]
            piece["tool_calls"] = [{**calls[0], "function": {"arguments": arguments[:size]}}]
            rest["tool_calls"] = [{**calls[0], "function": {"arguments": arguments[size:]}}]
        pieces.append(piece)
    return [*pieces, rest]


@given(chat_answers, st.lists(st.integers(0, 5), max_size=4))
def test_where_a_server_cuts_its_texts_does_not_matter(answer: dict[str, Any], sizes: list[int]) -> None:
    stream = unroll(encode(answer), path=CHAT, include_usage=True)
    chunks: list[dict[str, Any]] = []
    for event in parse_events(stream)[:-1]:
        whole = json.loads(event.data)
        part = whole["choices"][0] if whole["choices"] else {}
        if "role" in part.get("delta", {"role": 0}):
            chunks.append(whole)
            continue
        *pieces, last = recut(part["delta"], sizes)
        early = [{"index": part["index"], "delta": piece, "finish_reason": None} for piece in pieces]
        chunks += [{**whole, "choices": [choice]} for choice in (*early, {**part, "delta": last})]
    assert json.loads(assemble(frames(*chunks), path=CHAT)) == answer


def call(index: int, arguments: str | None = None, **more: Any) -> dict[str, Any]:
    function = {} if arguments is None else {"arguments": arguments}
    if name := more.pop("name", None):
        function["name"] = name
    return {"index": index, "function": function, **more}


def test_parallel_tool_calls_that_come_interleaved() -> None:
    got = message(
        chunk(role="assistant", content=None),
        chunk(
            tool_calls=[
                call(1, "", id="b", type="function", name="g"),
                call(0, "{", id="a", type="function", name="f"),
            ]
        ),
        chunk(tool_calls=[call(1, '{"x":')]),
        chunk(tool_calls=[call(0, "}")]),
        chunk(tool_calls=[call(1, "1}")]),
        chunk(finish="tool_calls"),
    )
    assert got["content"] is None
    assert got["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"x":1}'}},
    ]


def test_one_chunk_may_hold_several_pieces_of_one_call() -> None:
    got = message(
        chunk(tool_calls=[call(0, "{", id="a", name="f"), call(0, "}")]), chunk(finish="tool_calls")
    )
    assert got["tool_calls"] == [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]


def test_a_server_may_repeat_id_type_and_name_with_every_piece() -> None:
    piece = {"id": "a", "type": "function", "name": "f"}
    got = message(chunk(tool_calls=[call(0, "{", **piece)]), chunk(tool_calls=[call(0, "}", **piece)]))
    assert got["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]


@pytest.mark.parametrize(
    ("deltas", "content"),
    [
        ([{"role": "assistant", "content": ""}, {"tool_calls": [call(0, "", id="a")]}], None),
        (
            [{"role": "assistant", "content": ""}, {"tool_calls": [call(0, "", id="a")]}, {"content": ""}],
            None,
        ),
        ([{"role": "assistant", "content": ""}, {"reasoning": "hm"}], None),
        ([{"role": "assistant", "content": ""}, {"reasoning_content": "hm"}, {"content": "a"}], "a"),
        ([{"role": "assistant"}, {"tool_calls": [call(0, "", id="a")]}, {"content": ""}], ""),
        ([{"role": "assistant", "content": ""}, {"content": ""}], ""),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "assistant", "content": None}, {"refusal": "no"}], None),
        ([{}], ""),
    ],
)
def test_no_text_and_empty_text(deltas: list[dict[str, Any]], content: str | None) -> None:
    got = message(*[chunk(**delta) for delta in deltas], chunk(finish="stop"))
    assert got["content"] == content
    assert got["role"] == "assistant"


def test_what_nobody_has_heard_of_is_kept() -> None:
    first, second, last = (
        chunk(x_text="a", x_list=[1], x_object={"n": 1, "t": "p"}),
        chunk(x_text="b", x_list=[2]),
        chunk(finish="stop"),
    )
    second["choices"][0]["delta"]["x_object"] = {"t": "q", "n": 2}
    first["choices"][0]["x_choice"] = {"list": [1], "n": 1}
    second["choices"][0]["x_choice"] = {"list": [2], "n": 2}
    first["x_once"], second["x_last"], last["x_last"] = 1, 1, 2
    got = assembled(first, second, last)
    assert got["choices"][0]["message"] == {
        "role": "assistant", "content": None, "x_text": "ab", "x_list": [1, 2], "x_object": {"n": 2, "t": "pq"},
    }  # fmt: skip
    assert got["choices"][0]["x_choice"] == {"list": [1, 2], "n": 2}
    assert (got["x_once"], got["x_last"]) == (1, 2)


def test_choices_may_come_in_any_order() -> None:
    got = assembled(chunk(1, content="b"), chunk(0, content="a"), chunk(1, "stop"), chunk(0, "length"))
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in got["choices"]] == [
        (0, "a", "length"), (1, "b", "stop"),
    ]  # fmt: skip


def test_a_long_answer_does_not_cost_its_square() -> None:
    chunks = [chunk(content="word ") for _ in range(20_000)]
    assert message(*chunks)["content"] == "word " * 20_000


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (frames({"error": {"message": "x"}}), CHAT),
        (frames(chunk(finish="stop"), {"error": "x"}), CHAT),
        (b"data: {oops\n\n", CHAT),
        (b"data: [1]\n\n", CHAT),
        (b"data: \xff\n\n", CHAT),
        (b"", CHAT),
        (frames({"choices": []}), CHAT),
        (frames({"choices": [{"index": "a"}]}), TEXT),
        (frames({"choices": ["a"]}), TEXT),
        (frames(chunk(finish="stop")), "/v1/responses"),
    ],
)
def test_what_cannot_be_assembled(body: bytes, path: str) -> None:
    with pytest.raises(UpstreamInvalid):
        assemble(body, path=path)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"{", CHAT),
        (b"[]", CHAT),
        (b"{}", CHAT),
        (b'{"choices":[1]}', TEXT),
        (b'{"choices":[]}', "/v1/messages"),
    ],
)
def test_what_cannot_be_unrolled(body: bytes, path: str) -> None:
    with pytest.raises(UpstreamInvalid):
        unroll(body, path=path, include_usage=False)


def test_calls_that_are_no_functions() -> None:
    custom = {"id": "a", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    calls = {"role": "assistant", "content": None, "tool_calls": [custom]}
    answer = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": calls, "finish_reason": "tool_calls"}],
    }
    assert json.loads(assemble(unroll(encode(answer), path=CHAT, include_usage=True), path=CHAT)) == answer


def test_an_empty_list_of_calls_is_not_sent() -> None:
    answer = {
        "choices": [{"index": 0, "message": {"content": "a", "tool_calls": []}, "finish_reason": "stop"}]
    }
    assert b"tool_calls" not in unroll(encode(answer), path=CHAT, include_usage=False)


def test_other_frames_stay_byte_for_byte() -> None:
    odd = b': ping\r\n\r\ndata:{"choices":[ ],  "usage":{"a":1}}\n\n'
    odd += b'data: {"choices":[],"usage":null}\n\ndata: [DONE]\n\n'
    kept = [frame for frame in iter_frames(odd) if b'"a"' not in frame]
    assert strip_usage(odd) == b"".join(kept)
    assert len(kept) == 3


def test_a_character_that_was_cut_in_two_is_whole_again() -> None:
    """Found by chance (tests/fuzz): each half alone has no bytes in UTF-8, and was an error of ours."""
    halves = [chunk(content=half) for half in ("\ud83d", "\ude00")]
    whole = assemble(frames(*halves, chunk(finish="stop")), path=CHAT)
    assert json.loads(whole)["choices"][0]["message"]["content"] == "\U0001f600"
    unrolled = unroll(whole.replace(b"\\ude00", b""), path=CHAT, include_usage=True)
    assert json.loads(assemble(unrolled, path=CHAT))["choices"][0]["message"]["content"] == "\ud83d"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", b'data: {"type": {}, "response": {"output": []}}\n\n'),
        (CHAT, b'data: {"choices": [{"index": 0, "delta": [1]}]}\n\ndata: [DONE]\n\n'),
        (CHAT, b'data: {"choices": [{"message": 5, "delta": {"content": "a"}}]}\n\ndata: [DONE]\n\n'),
    ],
)
def test_events_with_members_of_a_type_that_they_never_have(path: str, body: bytes) -> None:
    """Found by chance (tests/fuzz): the model server is told of, and no error of ours is made of it."""
    with pytest.raises(UpstreamInvalid):
        assemble(body, path=path)
    assert not verdict(body, stream=True, path=path).complete


def test_a_document_with_members_of_a_type_that_they_never_have() -> None:
    for message in (b"1.5", b'"a"', b"[1]"):
        with pytest.raises(UpstreamInvalid):
            unroll(b'{"choices": [{"index": 0, "message": %b}]}' % message, path=CHAT, include_usage=True)
