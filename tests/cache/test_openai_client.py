"""The official client reads what unroll writes, from a real socket, and finds the stored answer in it."""

import asyncio
import json
from typing import Any

import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState

from llmpod.cache.unroll import unroll
from tests.cache.helpers import CHAT, TEXT

FUNCTION = {"name": "weather", "arguments": '{"city":"Zürich"}'}
ANSWERS: list[dict[str, Any]] = [
    {"message": {"role": "assistant", "content": "Grüße 🎈\n\n"}, "finish_reason": "stop"},
    {
        "message": {"role": "assistant", "content": None, "tool_calls": [
            {"id": "a", "type": "function", "function": FUNCTION},
            {"id": "b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
        ]},
        "finish_reason": "tool_calls",
    },
    {"message": {"role": "assistant", "content": "4", "reasoning": "2+2"}, "finish_reason": "stop"},
    {"message": {"role": "assistant", "content": None, "refusal": "No."}, "finish_reason": "stop"},
    {
        "message": {"role": "assistant", "content": "a"},
        "logprobs": {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}], "refusal": None},
        "finish_reason": "length",
    },
]  # fmt: skip


def document(*choices: dict[str, Any], kind: str = "chat.completion") -> dict[str, Any]:
    numbered = [{"index": index, **choice} for index, choice in enumerate(choices)]
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    return {"id": "x", "object": kind, "created": 1, "model": "tiny", "choices": numbered, "usage": usage}


async def serving(body: bytes) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


def client_of(server: asyncio.Server) -> openai.AsyncOpenAI:
    port = server.sockets[0].getsockname()[1]
    return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)


async def chat(answer: dict[str, Any]) -> Any:
    """What the client's own accumulator makes of the stream."""
    server = await serving(unroll(json.dumps(answer).encode(), path=CHAT, include_usage=True))
    state: Any = ChatCompletionStreamState()
    async with server, client_of(server) as client:
        stream = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "x"}], stream=True
        )
        async for chunk in stream:
            state.handle_chunk(chunk)
    return state.current_completion_snapshot


@pytest.mark.parametrize("choices", [*[[answer] for answer in ANSWERS], ANSWERS], ids=str)
def test_chat(choices: list[dict[str, Any]]) -> None:
    got = asyncio.run(chat(document(*choices))).model_dump()
    assert got["usage"]["total_tokens"] == 3
    for choice, wanted in zip(got["choices"], choices, strict=True):
        assert choice["finish_reason"] == wanted["finish_reason"]
        assert (choice["message"]["content"] or None) == wanted["message"]["content"]
        assert choice["message"].get("refusal") == wanted["message"].get("refusal")
        assert choice["message"].get("reasoning") == wanted["message"].get("reasoning")
        calls = [
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in choice["message"].get("tool_calls") or ()
        ]
        assert calls == [
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in wanted["message"].get("tool_calls", ())
        ]
        if wanted.get("logprobs"):
            assert choice["logprobs"]["content"] == wanted["logprobs"]["content"]


def test_text() -> None:
    async def read() -> list[Any]:
        answer = document({"text": "a b", "finish_reason": "stop", "logprobs": None}, kind="text_completion")
        server = await serving(unroll(json.dumps(answer).encode(), path=TEXT, include_usage=True))
        async with server, client_of(server) as client:
            stream = await client.completions.create(model="tiny", prompt="x", stream=True)
            return [chunk async for chunk in stream]

    chunks = asyncio.run(read())
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "a b"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens == 3
