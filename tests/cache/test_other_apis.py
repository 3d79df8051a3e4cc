"""Messages and Responses as documents and as streams: one is made from the other without a loss."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpod.cache import FrameScanner, verdict
from llmpod.cache.assemble import assemble
from llmpod.cache.sse import iter_frames, parse_events
from llmpod.cache.unroll import unroll
from llmpod.errors import UpstreamInvalid
from tests.cache.answers import names, some_text, text, values

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"

citations = st.lists(
    st.fixed_dictionaries({"type": st.just("char_location"), "cited_text": text}), max_size=2
)
blocks = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": text}, optional={"citations": citations}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": text, "signature": text}),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": some_text}),
    st.fixed_dictionaries(
        {
            "type": st.just("tool_use"),
            "id": some_text,
            "name": names,
            "input": st.dictionaries(names, values, max_size=3),
        },
        optional={"x_unknown": values},
    ),
)
counts = st.fixed_dictionaries(
    {"input_tokens": st.integers(0, 9), "output_tokens": st.integers(0, 9)},
    optional={"cache_read_input_tokens": st.none() | st.integers(0, 9)},
)
message_answers = st.fixed_dictionaries(
    {
        "id": some_text,
        "type": st.just("message"),
        "role": st.just("assistant"),
        "model": some_text,
        "content": st.lists(blocks, max_size=4),
        "stop_reason": st.sampled_from(["end_turn", "max_tokens", "stop_sequence", "tool_use"]),
        "usage": counts,
    },
    optional={"stop_sequence": st.none() | text, "container": st.none(), "x_unknown": values},
)
parts = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("output_text"), "text": text, "annotations": st.just([])},
        optional={"logprobs": st.none() | st.lists(st.just({"token": "a", "logprob": -1.0}), max_size=2)},
    ),
    st.fixed_dictionaries({"type": st.just("refusal"), "refusal": text}),
    st.fixed_dictionaries({"type": st.just("x_unknown"), "value": values}),
)
items = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.just("message"),
            "id": some_text,
            "role": st.just("assistant"),
            "status": st.just("completed"),
        },
    ).flatmap(lambda base: st.lists(parts, max_size=3).map(lambda content: {**base, "content": content})),
    st.fixed_dictionaries(
        {
            "type": st.just("function_call"),
            "id": some_text,
            "call_id": some_text,
            "name": names,
            "arguments": text,
        }
    ),
    st.fixed_dictionaries(
        {"type": st.just("reasoning"), "id": some_text, "summary": st.just([]), "x": values}
    ),
)
response_answers = st.fixed_dictionaries(
    {
        "id": some_text,
        "object": st.just("response"),
        "created_at": st.integers(1, 2**31),
        "model": some_text,
        "output": st.lists(items, max_size=4),
        "status": st.just("completed"),
        "usage": counts,
    },
    optional={"error": st.none(), "incomplete_details": st.none(), "x_unknown": values},
)
CASES = st.tuples(st.just(MESSAGES), message_answers) | st.tuples(st.just(RESPONSES), response_answers)


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def stream_of(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), encode(e)) for e in events)


@given(CASES, st.booleans())
def test_unrolled_and_assembled_is_the_answer_again(
    case: tuple[str, dict[str, Any]],
    asked: bool,  # noqa: FBT001 - drawn: token counts need not be asked for
) -> None:
    path, answer = case
    stream = unroll(encode(answer), path=path, include_usage=asked)
    assert json.loads(assemble(stream, path=path)) == answer
    found = verdict(stream, stream=True, path=path)
    assert (found.complete, found.model, found.usage) == (True, answer["model"], answer["usage"])
    assert FrameScanner(path).feed(stream)
    assert len(list(iter_frames(stream))) == len(parse_events(stream))


@given(response_answers)
def test_the_events_of_a_response_are_numbered_and_tell_its_texts(answer: dict[str, Any]) -> None:
    events = [
        json.loads(e.data) for e in parse_events(unroll(encode(answer), path=RESPONSES, include_usage=True))
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    said = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    wanted = [part.get("text", "") for item in answer["output"] for part in item.get("content", ())]
    assert said == "".join(wanted)
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == answer["output"]
    assert events[0]["response"]["output"] == []


def delta(index: int, **members: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": members}


START = {
    "type": "message_start",
    "message": {"id": "m1", "type": "message", "model": "x", "content": [], "usage": {"input_tokens": 3}},
}
END = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}}


def test_pieces_of_two_tool_calls_that_come_interleaved() -> None:
    """With pings, a citation, thoughts in pieces, and input that is no JSON until its last piece."""
    stream = stream_of(
        START,
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        delta(0, type="thinking_delta", thinking="hm "),
        delta(0, type="thinking_delta", thinking="yes"),
        delta(0, type="signature_delta", signature="sig"),
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "b", "input": {}},
        },
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        delta(1, type="text_delta", text="a"),
        delta(2, type="input_json_delta", partial_json=""),
        delta(2, type="input_json_delta", partial_json='{"city": "Os'),
        delta(1, type="citations_delta", citation={"cited_text": "q"}),
        delta(2, type="input_json_delta", partial_json='lo"}'),
        {"type": "content_block_stop", "index": 2},
        END,
        {"type": "message_stop"},
    )
    answer = json.loads(assemble(stream, path=MESSAGES))
    assert answer["content"] == [
        {"type": "thinking", "thinking": "hm yes", "signature": "sig"},
        {"type": "text", "text": "a", "citations": [{"cited_text": "q"}]},
        {"type": "tool_use", "id": "b", "input": {"city": "Oslo"}},
    ]
    assert answer["stop_reason"] == "tool_use"
    assert answer["usage"] == {"input_tokens": 3, "output_tokens": 5}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (stream_of(START, delta(0, type="text_delta", text="a")), MESSAGES),
        (stream_of({"type": "message_stop"}), MESSAGES),
        (stream_of({**START, "message": 3}), MESSAGES),
        (
            stream_of(
                START,
                {"type": "content_block_start", "index": 0, "content_block": {"type": "new"}},
                delta(0, type="new_delta", new="?"),
            ),
            MESSAGES,
        ),
        (
            stream_of(
                START,
                {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use"}},
                delta(0, type="input_json_delta", partial_json="{"),
            ),
            MESSAGES,
        ),
        (stream_of({"type": "response.created", "response": {}}), RESPONSES),
    ],
    ids=["no block", "no start", "no message", "unknown delta", "half an input", "no end"],
)
def test_what_is_not_understood_is_not_guessed(body: bytes, path: str) -> None:
    with pytest.raises(UpstreamInvalid):
        assemble(body, path=path)


@pytest.mark.parametrize(
    "body", [b"{}", b'{"content": "x", "output": {}}', b'{"output": [], "status": "queued"}']
)
@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
def test_what_cannot_be_unrolled(body: bytes, path: str) -> None:
    with pytest.raises(UpstreamInvalid):
        unroll(body, path=path, include_usage=True)
