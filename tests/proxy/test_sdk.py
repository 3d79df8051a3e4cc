"""The official openai package through the proxy: what people's programs see."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.proxy.front import Proxy
from tests.proxy.stub import Stub, Turn, chat, frames, plain
from tests.support.wait import eventually

Messages = list[Any]


@pytest.fixture
def client(front: Proxy, server: Stub) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{front.port}/v1", api_key="sk-test", max_retries=0) as sdk:
        yield sdk


def say(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def test_chat(client: openai.OpenAI, server: Stub) -> None:
    for _ in range(2):
        answer = client.chat.completions.create(model="m", messages=say("sdk"))
        assert answer.choices[0].message.content == "you said sdk"
        assert answer.usage
        assert answer.usage.total_tokens == 3
    assert len(server.turns) == 1


def test_a_stream_is_stored_though_the_sdk_hangs_up_at_its_last_event(
    client: openai.OpenAI, server: Stub
) -> None:
    def text() -> str:
        with client.chat.completions.create(model="m", messages=say("sdk stream"), stream=True) as stream:
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert text() == "yousaidsdkstream"
    eventually(lambda: text() == "yousaidsdkstream" and len(server.turns) == 1)


def test_a_cut_stream_is_an_error_and_not_an_answer(client: openai.OpenAI, server: Stub) -> None:
    def script(turn: Turn) -> None:
        turn.stream()
        turn.chunk(b"".join(frames("half", done=False, finish=None)))
        turn.last()

    server.script = script
    stream = client.chat.completions.create(model="m", messages=say("cut"), stream=True)
    with stream, pytest.raises(openai.APIError, match="before the answer was complete"):
        list(stream)


def test_errors_have_their_reason(client: openai.OpenAI, server: Stub) -> None:
    server.script = lambda t: t.reply(b'{"error":"Unauthorized"}', status="401 Unauthorized")
    with pytest.raises(openai.AuthenticationError, match="Unauthorized"):
        client.chat.completions.create(model="m", messages=say("who"))
    server.script = lambda t: t.reply(b'{"detail":"no such model"}', status="404 Not Found")
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.chat.completions.create(model="m", messages=say("what"))


def test_a_retry_succeeds(client: openai.OpenAI, server: Stub) -> None:
    def script(turn: Turn) -> None:
        if len(server.turns) == 1:
            turn.reply(b"busy", "retry-after: 0", status="503 Busy", kind="text/plain")
        else:
            plain(turn)

    server.script = script
    answer = client.with_options(max_retries=2).chat.completions.create(model="m", messages=say("again"))
    assert answer.choices[0].message.content == "you said again"


def test_embeddings_and_models(client: openai.OpenAI, server: Stub) -> None:
    server.script = lambda t: t.reply(
        b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,1.0]}],"model":"m",'
        b'"usage":{"prompt_tokens":1,"total_tokens":1}}'
    )
    assert client.embeddings.create(model="m", input="x", encoding_format="float").data[0].embedding == [
        0.5,
        1.0,
    ]
    server.script = lambda t: t.reply(
        b'{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"v"}]}'
    )
    assert [model.id for model in client.models.list()] == ["m"]


def test_fifty_at_once_are_one_call(front: Proxy, server: Stub) -> None:
    async def ask_all() -> set[str | None]:
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{front.port}/v1", api_key="k") as sdk:
            calls = [sdk.chat.completions.create(model="m", messages=say("burst")) for _ in range(50)]
            return {answer.choices[0].message.content for answer in await asyncio.gather(*calls)}

    def script(turn: Turn) -> None:
        eventually(lambda: front.metrics()["requests_in_flight"] == 1)
        turn.reply(chat("once"))

    server.script = script
    assert asyncio.run(ask_all()) == {"once"}
    assert len(server.turns) == 1
