"""The fake against exchanges recorded from a real vLLM 0.32.0: the same keys, statuses, headers and refusals."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sim.vllm.conftest import Fake
from tests.support.source import ROOT

CAPTURES = ROOT.parent / "shared/real/vllm/captures"
pytestmark = pytest.mark.skipif(not CAPTURES.is_dir(), reason=f"no recordings at {CAPTURES}")
HELLO = {
    "messages": [{"role": "user", "content": "hello world"}],
    "max_tokens": 8,
    "temperature": 0,
    "ignore_eos": True,
}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
EACH = {"include_usage": True, "continuous_usage_stats": True}


class Recorded:
    def __init__(self, name: str) -> None:
        head, _, self.text = Path(CAPTURES, f"{name}.http").read_text(encoding="utf-8").partition("\n\n")
        status, *headers = head.splitlines()
        self.status = int(status.split()[1])
        self.headers = {line.split(":", 1)[0] for line in headers}

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def chunks(self) -> list[Any]:
        *events, last = [line[6:] for line in self.text.splitlines() if line.startswith("data: ")]
        assert last == "[DONE]"
        return [json.loads(event) for event in events]


def shape(value: Any) -> Any:
    """The keys, in their order, at every depth; of a list the shapes that differ, numbers and the like left out."""
    if isinstance(value, dict):
        return [(key, shape(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        seen: list[Any] = []
        for inner in map(shape, value):
            if inner is not None and inner not in seen:
                seen.append(inner)
        return ["list", *seen]
    return None


WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, HELLO),
    "chat_n2_seed": (CHAT, {**HELLO, "n": 2, "seed": 7}),
    "chat_logprobs": (CHAT, {**HELLO, "logprobs": True, "top_logprobs": 2}),
    "chat_unknown_field": (CHAT, {**HELLO, "no_such_field": 1}),
    "completions": (COMPLETIONS, {"prompt": "hello", "max_tokens": 6, "ignore_eos": True}),
    "completions_list": (COMPLETIONS, {"prompt": ["a", "b"], "max_tokens": 2, "ignore_eos": True}),
    "responses": ("/v1/responses", {"input": "hello", "max_output_tokens": 5}),
    "messages": ("/v1/messages", {"messages": HELLO["messages"], "max_tokens": 5}),
    "tokenize": ("/tokenize", {"prompt": "hello world"}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_has_the_recorded_keys_and_headers(fake: Fake, name: str) -> None:
    path, body = WHOLE[name]
    real, answer = Recorded(name), fake.post(path, {"model": "tiny", **body})
    assert answer.status_code == real.status
    assert set(answer.headers) == real.headers
    assert shape(answer.json()) == shape(real.json)


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("chat_stream", CHAT, HELLO),
        ("chat_stream_usage", CHAT, {**HELLO, "stream_options": {"include_usage": True}}),
        ("chat_stream_usage_each", CHAT, {**HELLO, "stream_options": EACH}),
        ("completions_stream", COMPLETIONS, {"prompt": "hello", "max_tokens": 6, "ignore_eos": True}),
    ],
)
def test_a_stream_has_the_recorded_kinds_of_chunks_in_their_order(
    fake: Fake, name: str, path: str, body: dict[str, Any]
) -> None:
    real = Recorded(name)
    assert shape(fake.chunks(path, body)) == shape(real.chunks)
    assert set(fake.post(path, {**body, "stream": True}).headers) == real.headers


def test_refusals_are_the_recorded_ones_word_for_word(start: Any) -> None:
    bodies: dict[str, object] = {
        "chat_bad_json": b"{bad",
        "chat_bad_type": {**HELLO, "max_tokens": "x"},
        "chat_neg_temp": {**HELLO, "temperature": -1},
        "chat_no_messages": {"model": "tiny"},
        "chat_too_long": {**HELLO, "max_tokens": 999999},
        "chat_tools_auto": {
            **HELLO,
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": "auto",
        },
        "chat_unknown_model": {**HELLO, "model": "nope"},
    }
    with start("--served-model-name", "tiny", "--max-model-len", "1024") as fake:
        for name, body in bodies.items():
            real, answer = Recorded(name), fake.post(CHAT, body)
            assert (answer.status_code, answer.text) == (real.status, real.text.rstrip("\n")), name


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        ("health", "GET", "/health"),
        ("ping", "GET", "/ping"),
        ("version", "GET", "/version"),
        ("load", "GET", "/load"),
        ("models", "GET", "/v1/models"),
        ("head_models", "HEAD", "/v1/models"),
        ("not_found", "GET", "/v1/nope"),
        ("wrong_method", "GET", CHAT),
        ("models_nokey", "GET", "/v1/models"),
        ("models_badkey", "GET", "/v1/models"),
        ("options_chat", "OPTIONS", CHAT),
        ("metrics", "GET", "/metrics"),
    ],
)
def test_what_needs_no_body_answers_as_recorded(fake: Fake, name: str, method: str, path: str) -> None:
    real = Recorded(name)
    headers = {"origin": "http://x", "access-control-request-method": "POST"} if method == "OPTIONS" else {}
    key = {"nokey": "", "badkey": "Bearer wrong"}.get(name.partition("_")[2], f"Bearer {fake.key}")
    answer = httpx.request(
        method, fake.url + path, headers={**headers, **({"authorization": key} if key else {})}
    )
    assert answer.status_code == real.status
    assert set(answer.headers) == real.headers
    if real.text[:1] == "{":
        assert shape(answer.json()) == shape(real.json)


def test_its_metrics_are_among_the_real_ones(fake: Fake) -> None:
    real = Recorded("metrics").text
    fake.post(CHAT, HELLO)
    ours = [line.split("{")[0] for line in fake.http.get("/metrics").text.splitlines() if line[0] != "#"]
    assert ours
    assert [name for name in ours if f"\n{name}{{" not in real] == []
