"""The official client against the fake."""

import json
from typing import Any

import pytest

from tests.sim.vllm.conftest import Fake

openai = pytest.importorskip("openai")

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}
ASK: Any = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture
def client(fake: Fake) -> Any:
    with openai.OpenAI(base_url=f"{fake.url}/v1", api_key=fake.key, max_retries=0) as client:
        yield client


def test_chat_and_stream(client: Any) -> None:
    whole = client.chat.completions.create(model="tiny", messages=ASK)
    assert "weather in Paris" in whole.choices[0].message.content
    with client.chat.completions.create(
        model="tiny", messages=ASK, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens


def test_two_tools_at_once(client: Any) -> None:
    asked = {"model": "tiny", "messages": ASK, "tools": [WEATHER, TIME], "tool_choice": "required"}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason == "tool_calls"
    assert [call.function.name for call in whole.choices[0].message.tool_calls] == ["weather", "time"]
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion()
    for ours, theirs in zip(
        whole.choices[0].message.tool_calls, final.choices[0].message.tool_calls, strict=True
    ):
        assert ours.function.arguments == theirs.function.arguments
        assert isinstance(json.loads(ours.function.arguments), dict)


def test_embeddings_decoded_by_the_client(client: Any) -> None:
    texts = ["a cat sat", "the cat sat", "quantum chromodynamics"]
    as_base64 = client.embeddings.create(model="tiny", input=texts)  # the client asks for base64 by itself
    as_numbers = client.embeddings.create(model="tiny", input=texts, encoding_format="float")
    first, second, third = [one.embedding for one in as_base64.data]
    assert [first, second, third] == [one.embedding for one in as_numbers.data]
    assert len(client.embeddings.create(model="tiny", input="x", dimensions=8).data[0].embedding) == 8

    def nearness(left: list[float], right: list[float]) -> float:
        return sum(a * b for a, b in zip(left, right, strict=True))

    assert nearness(first, first) == pytest.approx(1, abs=1e-5)
    assert nearness(first, second) > nearness(first, third)


def test_models_completions_and_responses(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.completions.create(model="tiny", prompt="x", max_tokens=3).usage.completion_tokens == 3
    assert "hello" in client.responses.create(model="tiny", input="hello").output_text
    with client.responses.stream(model="tiny", input="hello") as stream:
        assert (
            stream.get_final_response().output_text
            == client.responses.create(model="tiny", input="hello").output_text
        )


def test_reasoning_stands_beside_the_answer(client: Any) -> None:
    thinking = {"chat_template_kwargs": {"enable_thinking": True}}
    message = (
        client.chat.completions.create(model="tiny", messages=ASK, extra_body=thinking).choices[0].message
    )
    assert message.reasoning == message.reasoning_content
    assert "Paris" in message.content


def test_errors_are_the_clients_own_classes(client: Any) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nope", messages=ASK)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="tiny", messages=[])
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="tiny", messages=ASK, extra_headers={"x-sim-fault": "reset"})


def test_tokens_are_reversible(fake: Fake) -> None:
    text = "naïve 🙂 tokens\n  and  spaces"
    numbers = fake.post("/tokenize", {"prompt": text}).json()["tokens"]
    assert fake.post("/detokenize", {"tokens": numbers}).json() == {"prompt": text}


def test_rerank_and_score_agree_on_what_is_near(fake: Fake) -> None:
    documents = ["trains to Rome", "the weather in Paris"]
    ranked = fake.post("/v1/rerank", {"query": "weather in Paris", "documents": documents}).json()["results"]
    scores = fake.post("/v1/score", {"text_1": "weather in Paris", "text_2": documents}).json()["data"]
    assert [result["index"] for result in ranked] == [1, 0]
    assert [ranked[1]["relevance_score"], ranked[0]["relevance_score"]] == [one["score"] for one in scores]
