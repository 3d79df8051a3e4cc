"""Anthropic's /v1/messages in its two forms, text only. Not tools."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from llmpod.sim.vllm.chat import Fields, new_id
from llmpod.sim.vllm.engine import Said
from llmpod.sim.vllm.gather import Choice, gathered
from llmpod.sim.vllm.http import DONE, named_event
from llmpod.sim.vllm.job import Job

_SAME = ("model", "max_tokens", "temperature", "top_p", "top_k", "ignore_eos", "min_tokens")
_REASON = {"stop": "end_turn", "length": "max_tokens"}


def messages_as_chat(body: Mapping[str, Any]) -> Fields:
    """The chat request that means the same."""
    chat = {name: body[name] for name in _SAME if name in body}
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    kwargs = {"enable_thinking": False}
    messages = [*system, *body["messages"]]
    return {**chat, "messages": messages, "stop": body.get("stop_sequences"), "chat_template_kwargs": kwargs}


async def messages_whole(said: AsyncGenerator[Said, None], job: Job, model: str) -> Fields:
    """A message, once it has ended."""
    (choice,) = await gathered(said, 1)
    return {
        **_head(),
        "content": [{"type": "text", "text": choice.text()}],
        "model": model,
        **_ending(choice),
        "usage": _usage(job.prompt_tokens, len(choice.steps)),
    }


async def messages_stream(
    said: AsyncGenerator[Said, None], job: Job, model: str
) -> AsyncGenerator[bytes, None]:
    """Its events; vLLM ends them with a [DONE] that Anthropic's own server does not send."""
    choice = Choice()
    start = {**_head(), "content": [], "model": model, "stop_reason": None, "stop_sequence": None}
    start["usage"] = _usage(job.prompt_tokens, 0)
    yield named_event({"type": "message_start", "message": start})
    yield named_event(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    )
    async with aclosing(said) as running:
        async for news in running:
            choice.add(news)
            if news.step and news.step.text:
                delta = {"type": "text_delta", "text": news.step.text}
                yield named_event({"type": "content_block_delta", "index": 0, "delta": delta})
    yield named_event({"type": "content_block_stop", "index": 0})
    usage = _usage(job.prompt_tokens, len(choice.steps))
    yield named_event({"type": "message_delta", "delta": _ending(choice), "usage": usage})
    yield named_event({"type": "message_stop"})
    yield DONE


def _head() -> Fields:
    return {"id": new_id("chatcmpl-"), "type": "message", "role": "assistant"}


def _ending(choice: Choice) -> Fields:
    if choice.stop_reason is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": choice.stop_reason}
    return {"stop_reason": _REASON.get(choice.finish)}


def _usage(prompt: int, completion: int) -> Fields:
    return {"input_tokens": prompt, "output_tokens": completion}
