"""The official openai package, the proxy, and a server that speaks as vLLM 0.32 was recorded to."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.proxy.front import Proxy, proxy, settings
from tests.support.process import PYTHON, running
from tests.support.wait import eventually

KEY = "sk-bait-for-the-fake-vllm"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ASKED: dict[str, Any] = {"model": "org/m", "temperature": 0, "max_tokens": 12}
_PASSING = ("id", "created")
QUESTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two choices": {"n": 2},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "forced tool": {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
}


@pytest.fixture(scope="module")
def vllm() -> Iterator[str]:
    command = [PYTHON, "-m", "llmpod.sim.vllm", "--port", "0", "--model", "org/m", "--load-seconds", "0"]
    with running([*command, "--tokens-per-second", "0"], env={"VLLM_API_KEY": KEY}) as process:
        process.says('"url"')
        yield str(json.loads(process.out.splitlines()[0])["url"])


@pytest.fixture(scope="module")
def fresh(vllm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with proxy(settings(tmp_path_factory.mktemp("a") / "cache", vllm, RUNPOD_ENDPOINT_KEY=KEY)) as front:
        yield front


@pytest.fixture(scope="module")
def assembling(vllm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    more = {"RUNPOD_ENDPOINT_KEY": KEY, "UPSTREAM_STREAM": "always"}
    with proxy(settings(tmp_path_factory.mktemp("b") / "cache", vllm, **more)) as front:
        yield front


def sdk(front: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{front.port}/v1", api_key="whatever", max_retries=0)


def messages(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def essence(value: Any) -> Any:
    """What two generations of one answer share: no ids, no seconds, and no members that say nothing.

    vLLM writes ``"refusal": null``, ``"content": ""`` and the like into a document and not into its streams.
    """
    if isinstance(value, list):
        return [essence(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: essence(item)
        for name, item in value.items()
        if item not in (None, [], "") and name not in _PASSING
    }


@pytest.mark.parametrize("question", QUESTIONS)
def test_put_together_from_a_stream_is_what_the_server_says_in_one_piece(
    fresh: Proxy, assembling: Proxy, question: str
) -> None:
    body = {**ASKED, "messages": messages(question), **QUESTIONS[question]}
    whole, assembled = fresh.ask(body), assembling.ask(body)
    assert (whole.status, assembled.status) == (200, 200)
    assert essence(assembled.json) == essence(whole.json)


def test_both_forms_from_one_entry(fresh: Proxy) -> None:
    before = fresh.metrics()
    with sdk(fresh) as client:
        whole = client.chat.completions.create(**ASKED, messages=messages("both"))
        with client.chat.completions.create(**ASKED, messages=messages("both"), stream=True) as stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == whole.choices[0].message.content
    after = fresh.metrics()
    assert [after[name] - before[name] for name in ("upstream_calls", "cache_hits")] == [1, 1]


def test_a_live_stream_with_usage_and_its_replay(fresh: Proxy) -> None:
    def total() -> int:
        options: Any = {"include_usage": True}
        with client.chat.completions.create(
            **ASKED, messages=messages("count"), stream=True, stream_options=options
        ) as stream:
            totals: list[int] = [chunk.usage.total_tokens for chunk in stream if chunk.usage]
            return totals[-1]

    with sdk(fresh) as client:
        first = total()
        before = fresh.metrics()
        eventually(lambda: total() == first and fresh.metrics()["cache_hits"] > before["cache_hits"])
    assert fresh.metrics()["upstream_calls"] == before["upstream_calls"]


def test_tools_models_embeddings_completions(fresh: Proxy) -> None:
    with sdk(fresh) as client:
        forced: Any = QUESTIONS["forced tool"]
        answer = client.chat.completions.create(**ASKED, messages=messages("Oslo?"), **forced)
        calls = answer.choices[0].message.tool_calls
        assert calls
        assert calls[0].type == "function"
        assert calls[0].function.name == "weather"
        assert [model.id for model in client.models.list()] == ["org/m"]
        assert client.embeddings.create(model="org/m", input="x").data[0].embedding
        assert client.completions.create(model="org/m", prompt="x", max_tokens=3).choices[0].text


def test_the_servers_errors_reach_the_sdk(fresh: Proxy) -> None:
    with sdk(fresh) as client, pytest.raises(openai.NotFoundError, match="nobody/knows"):
        client.chat.completions.create(model="nobody/knows", messages=messages("x"))


def test_a_wrong_key_is_said(vllm: str, cache_dir: Path, env: dict[str, str]) -> None:
    environ = env | settings(cache_dir, vllm, RUNPOD_ENDPOINT_KEY="sk-wrong")
    with (
        proxy(environ) as front,
        sdk(front) as client,
        pytest.raises(openai.AuthenticationError, match="Unauthorized"),
    ):
        client.chat.completions.create(**ASKED, messages=messages("x"))
