import json
from typing import Any

import pytest

from llmpod.cache import verdict
from tests.cache.helpers import CHAT, TEXT, chunk, frames

DONE = b"data: [DONE]\n\n"


def stream(body: bytes, path: str = CHAT) -> tuple[bool, str]:
    found = verdict(body, stream=True, path=path)
    return found.complete, found.reason


def document(value: Any, path: str = CHAT) -> tuple[bool, str]:
    found = verdict(json.dumps(value).encode(), stream=False, path=path)
    return found.complete, found.reason


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "function_call"])
def test_good_ends_are_complete(reason: str) -> None:
    assert stream(frames(chunk(content="a"), chunk(finish=reason))) == (True, "")
    assert document({"choices": [{"index": 0, "finish_reason": reason}]}) == (True, "")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (frames(chunk(content="a"), chunk(finish="abort")), "'abort'"),
        (frames(chunk(content="a"), chunk(finish="content_filter")), "'content_filter'"),
        (frames(chunk(content="a")), "None"),
        (frames(chunk(finish="stop"), done=False), "[DONE]"),
        (frames(chunk(finish="stop"), done=False) + b"data: [DONE]\n", "[DONE]"),
        (frames(chunk(finish="stop")) + frames(chunk(content="late"), done=False), "[DONE]"),
        (frames(chunk(finish="stop"), {"error": {"message": "x"}}), "error"),
        (frames(chunk(finish="stop")).replace(b"data: [", b"event: error\ndata: {}\n\ndata: ["), "error"),
        (frames(chunk(0, "stop"), chunk(1, content="b")), "choice 1"),
        (frames(chunk(0, "stop"), chunk(0, "abort")), "twice"),
        (frames(chunk(0, "stop")).replace(b"data: [", b"data: {oops\n\ndata: ["), "frame 2 is not JSON"),
        (frames(chunk(0, "stop")).replace(b"data: [", b"data: 1,2\n\ndata: ["), "not JSON"),
        (
            frames(chunk(0, "stop"), {"choices": [], "usage": {"a": 1}}).replace(b'"a": 1', b'"a": NaN'),
            "not JSON",
        ),
        (DONE, "no choice"),
        (b"", "[DONE]"),
        (frames({"choices": []}), "no choice"),
        (frames({"x": 1}), "no list of choices"),
        (b"data: \xff\n\n" + DONE, "UTF-8"),
    ],
)
def test_what_was_cut_off_is_not_complete(body: bytes, words: str) -> None:
    complete, reason = stream(body)
    assert not complete
    assert words in reason


def test_usage_and_model_are_found() -> None:
    usage = {"total_tokens": 3}
    found = verdict(frames(chunk(finish="stop"), {"choices": [], "usage": usage}), stream=True, path=CHAT)
    assert (found.complete, found.has_usage, found.usage, found.model) == (True, True, usage, "tiny")
    assert not verdict(frames(chunk(finish="stop")), stream=True, path=CHAT).has_usage


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (CHAT, {"choices": [{"index": 0, "finish_reason": "abort"}]}, "'abort'"),
        (CHAT, {"choices": []}, "no choice"),
        (CHAT, {"choices": {"a": 1}}, "no list"),
        (CHAT, [1], "not a JSON object"),
        (TEXT, {"choices": [{"index": 0, "finish_reason": "stop"}, {"index": 1}]}, "choice 1"),
        (TEXT, {"choices": [{"index": "a"}]}, "no number"),
        ("/v1/embeddings", {"error": "x"}, "error"),
        ("/v1/embeddings", {"object": "error", "message": "x"}, "error"),
        ("/v1/responses", {"status": "failed"}, "'failed'"),
        (
            "/v1/responses",
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            "'incomplete'",
        ),
        ("/v1/messages", {"type": "message", "stop_reason": None}, "None"),
        ("/v1/messages", {"type": "error", "error": {}}, "error"),
        ("/v1/messages", {"a": 1}, "not a message"),
        ("/v1/audio/speech", {}, "not stored"),
    ],
)
def test_documents_that_are_not_answers(path: str, value: Any, words: str) -> None:
    complete, reason = document(value, path)
    assert not complete
    assert words in reason


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/v1/embeddings", {"data": [], "error": None}),
        ("/v1/responses", {"status": "completed", "error": None}),
        ("/v1/responses", {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}),
        ("/v1/messages", {"type": "message", "stop_reason": "end_turn"}),
        ("/tokenize", {"tokens": [1]}),
    ],
)
def test_documents_that_are_answers(path: str, value: Any) -> None:
    assert document(value, path) == (True, "")


def test_a_cut_document_is_not_complete() -> None:
    whole = b'{"data":[1,2,3]}'
    for size in range(len(whole)):
        assert not verdict(whole[:size], stream=False, path="/v1/embeddings").complete
    assert not verdict(b'{"a":"\xff"}', stream=False, path="/v1/embeddings").complete
    assert not verdict(b"data: {}\n\n", stream=True, path="/v1/embeddings").complete


def responses(last: dict[str, Any], *, done: bool = False) -> bytes:
    return frames({"type": "response.created", "response": {}}, last, done=done)


def test_responses_streams() -> None:
    good = {
        "type": "response.completed",
        "response": {"status": "completed", "model": "r", "usage": {"a": 1}},
    }
    found = verdict(responses(good), stream=True, path="/v1/responses")
    assert (found.complete, found.model, found.usage) == (True, "r", {"a": 1})
    assert stream(responses(good, done=True), "/v1/responses") == (True, "")
    failed = {"type": "response.failed", "response": {"status": "failed", "error": {"code": "x"}}}
    for last in (failed, {"type": "response.in_progress", "response": {}}, {"type": "response.completed"}):
        assert not stream(responses(last), "/v1/responses")[0]
    assert not stream(b"", "/v1/responses")[0]


def test_messages_streams() -> None:
    start = {"type": "message_start", "message": {"model": "a", "usage": {"input_tokens": 1}}}
    delta = {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 2}}
    stop = {"type": "message_stop"}
    found = verdict(frames(start, delta, stop, done=False), stream=True, path="/v1/messages")
    assert (found.complete, found.model, found.usage) == (True, "a", {"output_tokens": 2})
    assert stream(frames(start, delta, stop), "/v1/messages") == (True, "")
    assert not stream(frames(start, delta, done=False), "/v1/messages")[0]
    assert not stream(frames(start, stop, done=False), "/v1/messages")[0]
    assert not stream(frames(start, {"type": "error", "error": {}}, delta, stop), "/v1/messages")[0]
