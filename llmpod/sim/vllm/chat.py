"""The two forms of a chat answer: whole, and as a stream. Not what it says, which job.py decides."""

import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from llmpod.sim.vllm.engine import Said
from llmpod.sim.vllm.gather import Choice, gathered
from llmpod.sim.vllm.http import DONE, event
from llmpod.sim.vllm.job import Job
from llmpod.sim.vllm.script import Step, logprob

FINGERPRINT = "vllm-0.32.0-261a80b7"
Fields = dict[str, Any]


def new_id(prefix: str) -> str:
    """An id like the real ones: a prefix and 16 hexadecimal digits."""
    return f"{prefix}{secrets.token_hex(8)}"


def usage(prompt: int, completion: int) -> Fields:
    """The three counts, in the order of the real server."""
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def full_usage(prompt: int, completion: int) -> Fields:
    """The counts with the details that only whole answers carry."""
    return {**usage(prompt, completion), "prompt_tokens_details": None, "completion_tokens_details": None}


async def chat_whole(
    said: AsyncGenerator[Said, None], job: Job, body: Mapping[str, Any], model: str
) -> Fields:
    """A chat.completion."""
    created = int(time.time())
    choices = await gathered(said, len(job.scripts))
    return {
        "id": new_id("chatcmpl-"),
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [_choice(index, choice, job, body) for index, choice in enumerate(choices)],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": full_usage(job.prompt_tokens, sum(len(choice.steps) for choice in choices)),
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


async def chat_stream(
    said: AsyncGenerator[Said, None], job: Job, body: Mapping[str, Any], model: str
) -> AsyncGenerator[bytes, None]:
    """The events of a chat.completion.chunk stream, [DONE] included."""
    stream = _Stream(job, body, model)
    begun = False
    async with aclosing(said) as running:
        async for news in running:
            if not begun:
                begun = True
                for choice in range(len(job.scripts)):
                    yield event(stream.role(choice))
            yield event(stream.chunk(news))
    if stream.include_usage:
        yield event(stream.usage())
    yield DONE


class _Stream:
    """Where a stream stands: what was counted, and which tool calls have their name already."""

    def __init__(self, job: Job, body: Mapping[str, Any], model: str) -> None:
        options = body.get("stream_options") or {}
        self.include_usage = bool(options.get("include_usage"))
        self._each = self.include_usage and bool(options.get("continuous_usage_stats"))
        self._job, self._body = job, body
        self._head = {
            "id": new_id("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
        }
        self._head["model"] = model
        self._tokens = 0
        self._open = len(job.scripts)
        self._named: set[tuple[int, int]] = set()

    def role(self, choice: int) -> Fields:
        delta = {"role": "assistant", "content": ""}
        first = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None}
        return {
            **self._head,
            "choices": [first],
            **self._so_far(),
            "prompt_token_ids": None,
            "prompt_text": None,
        }

    def chunk(self, news: Said) -> Fields:
        self._tokens += news.step is not None
        choice: Fields = {"index": news.choice, "delta": self._delta(news), "logprobs": None}
        if news.step and self._body.get("logprobs"):
            choice["logprobs"] = logprobs([news.step], self._body, first=news.position)
        choice["finish_reason"] = news.finish
        if news.finish:
            choice["stop_reason"] = news.stop_reason
            self._open -= 1
        choice["token_ids"] = None
        last = {"system_fingerprint": FINGERPRINT} if not self._open and not self.include_usage else {}
        return {**self._head, "choices": [choice], **self._so_far(), **last}

    def usage(self) -> Fields:
        counts = usage(self._job.prompt_tokens, self._tokens)
        return {**self._head, "choices": [], "usage": counts, "system_fingerprint": FINGERPRINT}

    def _so_far(self) -> Fields:
        counts = {**usage(self._job.prompt_tokens, self._tokens), "completion_tokens_details": None}
        return {"usage": counts} if self._each else {}

    def _delta(self, news: Said) -> Fields:
        match news.step:
            case Step(kind="reasoning", text=text):
                return {"reasoning": text, "reasoning_content": text}
            case Step(kind="tool", text=text, tool=tool):
                return {"tool_calls": [self._call(news.choice, tool, text)]}
            case Step(text=text):
                return {"content": text}
            case None:
                return {"content": ""}

    def _call(self, choice: int, tool: int, text: str) -> Fields:
        if (choice, tool) in self._named:
            return {"index": tool, "function": {"arguments": text}}
        self._named.add((choice, tool))
        return {**_call(self._job.tools[tool], text), "index": tool}


def logprobs(steps: Sequence[Step], body: Mapping[str, Any], *, first: int = 0) -> Fields:
    """The probabilities of tokens, the first of which stands at position `first` of its choice."""
    tops = body.get("top_logprobs") or 0
    return {"content": [logprob(step, first + index, tops) for index, step in enumerate(steps)]}


def _choice(index: int, choice: Choice, job: Job, body: Mapping[str, Any]) -> Fields:
    return {
        "index": index,
        "message": _message(choice, job),
        "logprobs": logprobs(choice.steps, body) if body.get("logprobs") else None,
        "finish_reason": choice.finish,
        "stop_reason": choice.stop_reason,
        "token_ids": None,
        "routed_experts": None,
    }


def _message(choice: Choice, job: Job) -> Fields:
    message: Fields = {"role": "assistant", "content": choice.text()}
    message |= dict.fromkeys(("refusal", "annotations", "audio", "function_call"))
    if choice.tools:
        message["tool_calls"] = [_call(job.tools[tool], choice.text("tool", tool)) for tool in choice.tools]
    thoughts = choice.text("reasoning")
    message["reasoning"] = thoughts or None
    return {**message, "reasoning_content": thoughts} if thoughts else message


def _call(name: str, arguments: str) -> Fields:
    return {
        "id": new_id("chatcmpl-tool-"),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
