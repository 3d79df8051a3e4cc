"""OpenAI's /v1/responses in its two forms, text only. Not tools, and nothing is stored."""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from llmpod.sim.vllm.chat import Fields, new_id
from llmpod.sim.vllm.engine import Said
from llmpod.sim.vllm.gather import Choice, gathered
from llmpod.sim.vllm.http import Refusal, named_event
from llmpod.sim.vllm.job import Job

_SAME = ("model", "temperature", "top_p", "seed", "ignore_eos", "min_tokens")
_STATUS = {"length": "incomplete", "abort": "cancelled"}


def responses_as_chat(body: Mapping[str, Any]) -> Fields:
    """The chat request that means the same."""
    given = body["input"]
    if not isinstance(given, str | list):
        raise Refusal(400, "input must be a string or a list of items", param="input")
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if instructions := body.get("instructions"):
        messages = [{"role": "system", "content": instructions}, *messages]
    chat = {name: body[name] for name in _SAME if name in body}
    kwargs = {"enable_thinking": False}
    return {
        **chat,
        "messages": messages,
        "max_tokens": body.get("max_output_tokens"),
        "chat_template_kwargs": kwargs,
    }


class Response:
    """One response on its way from "in_progress" to its end."""

    def __init__(self, job: Job, body: Mapping[str, Any], model: str) -> None:
        self._job, self._body, self._model = job, body, model
        self._id, self._message = new_id("resp_"), new_id("msg_")
        self._created = int(time.time())
        self._number = -1

    async def whole(self, said: AsyncGenerator[Said, None]) -> Fields:
        """The response, once it has ended."""
        (choice,) = await gathered(said, 1)
        return self._response(choice)

    async def stream(self, said: AsyncGenerator[Said, None]) -> AsyncGenerator[bytes, None]:
        """Its events; unlike the other streams this one has no [DONE]."""
        begun, choice = self._response(None), Choice()
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        item = {**self._item(""), "status": "in_progress", "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)
        place = {"item_id": self._message, "output_index": 0, "content_index": 0}
        yield self._event("response.content_part.added", **place, part=_part(""))
        async with aclosing(said) as running:
            async for news in running:
                choice.add(news)
                if news.step:
                    delta = news.step.text
                    yield self._event("response.output_text.delta", **place, delta=delta, logprobs=[])
        text = choice.text()
        yield self._event("response.output_text.done", **place, text=text, logprobs=[])
        yield self._event("response.content_part.done", **place, part=_part(text))
        yield self._event("response.output_item.done", output_index=0, item=self._item(text))
        yield self._event("response.completed", response=self._response(choice))

    def _event(self, kind: str, **fields: object) -> bytes:
        self._number += 1
        return named_event({"type": kind, "sequence_number": self._number, **fields})

    def _item(self, text: str) -> Fields:
        fixed = {"role": "assistant", "status": "completed", "type": "message", "phase": None}
        return {"id": self._message, "content": [_part(text)], **fixed}

    def _response(self, choice: Choice | None) -> Fields:
        """All fields; without a choice, as they are before the first token."""
        get = self._body.get
        cut = {"reason": "max_output_tokens"} if choice and choice.finish == "length" else None
        return {
            "id": self._id,
            "created_at": self._created,
            "incomplete_details": cut,
            "instructions": get("instructions"),
            "metadata": get("metadata"),
            "model": self._model,
            "object": "response",
            "output": [self._item(choice.text())] if choice else [],
            "parallel_tool_calls": True,
            "temperature": 1.0 if get("temperature") is None else get("temperature"),
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0 if get("top_p") is None else get("top_p"),
            "background": False,
            "max_output_tokens": get("max_output_tokens") or self._job.most,
            **dict.fromkeys(("max_tool_calls", "previous_response_id", "prompt", "reasoning")),
            "service_tier": "auto",
            "status": _STATUS.get(choice.finish, "completed") if choice else "in_progress",
            "text": get("text"),
            "top_logprobs": None,
            "truncation": "disabled",
            "usage": _usage(self._job.prompt_tokens, len(choice.steps)) if choice else None,
            "user": get("user"),
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            **dict.fromkeys(
                ("kv_transfer_params", "ec_transfer_params", "input_messages", "output_messages")
            ),
        }


def _part(text: str) -> Fields:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}


def _usage(prompt: int, completion: int) -> Fields:
    cached = {
        "cached_tokens": 0,
        "cache_write_tokens": 0,
        "input_tokens_per_turn": [],
        "cached_tokens_per_turn": [],
    }
    made = {"reasoning_tokens": 0, "tool_output_tokens": 0}
    made_lists: Fields = {"output_tokens_per_turn": [], "tool_output_tokens_per_turn": []}
    return {
        "input_tokens": prompt,
        "input_tokens_details": cached,
        "output_tokens": completion,
        "output_tokens_details": {**made, **made_lists},
        "total_tokens": prompt + completion,
    }
