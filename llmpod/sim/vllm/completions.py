"""The two forms of a text completion, and the jobs for them. Not chat."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from llmpod.sim.vllm import checks, tokens
from llmpod.sim.vllm.chat import FINGERPRINT, Fields, full_usage, new_id, usage
from llmpod.sim.vllm.engine import Said
from llmpod.sim.vllm.gather import gathered
from llmpod.sim.vllm.http import DONE, Refusal, event
from llmpod.sim.vllm.job import Job, limits_of, prose
from llmpod.sim.vllm.options import VllmOptions
from llmpod.sim.vllm.script import Script, Segment, Step, logprob, script

_DEFAULT_TOKENS = 16  # what the API promises when max_tokens is not given


def completion_job(body: Mapping[str, Any], options: VllmOptions) -> Job:
    """The job of a checked completion body: `n` choices for each prompt. Raises Refusal (400, 404)."""
    checks.known_model(body, options)
    checks.sane(body, options)
    prompts = _prompts(body.get("prompt"))
    scripts = [
        _script(body, prompt, choice, options) for prompt in prompts for choice in range(body.get("n") or 1)
    ]
    return Job(tuple(scripts), sum(map(tokens.count, prompts)))


async def completion_whole(
    said: AsyncGenerator[Said, None], job: Job, body: Mapping[str, Any], model: str
) -> Fields:
    """A text_completion."""
    created = int(time.time())
    choices = await gathered(said, len(job.scripts))
    return {
        "id": new_id("cmpl-"),
        "object": "text_completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": index,
                "text": choice.text(),
                "logprobs": _logprobs(choice.steps, body),
                "finish_reason": choice.finish,
                "stop_reason": choice.stop_reason,
                **dict.fromkeys(("token_ids", "prompt_logprobs", "prompt_token_ids", "routed_experts")),
            }
            for index, choice in enumerate(choices)
        ],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": full_usage(job.prompt_tokens, sum(len(choice.steps) for choice in choices)),
        **dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "metrics")),
    }


async def completion_stream(
    said: AsyncGenerator[Said, None], job: Job, body: Mapping[str, Any], model: str
) -> AsyncGenerator[bytes, None]:
    """The events of a text_completion stream, [DONE] included."""
    options = body.get("stream_options") or {}
    with_usage = bool(options.get("include_usage"))
    each = with_usage and bool(options.get("continuous_usage_stats"))
    head = {"id": new_id("cmpl-"), "object": "text_completion", "created": int(time.time()), "model": model}
    generated, still_open, written = 0, len(job.scripts), [0] * len(job.scripts)
    async with aclosing(said) as running:
        async for news in running:
            generated += news.step is not None
            still_open -= news.finish is not None
            chunk: Fields = {**head, "choices": [_delta(news, body, written[news.choice])]}
            written[news.choice] += len(news.step.text) if news.step else 0
            if each:
                chunk["usage"] = {**usage(job.prompt_tokens, generated), "completion_tokens_details": None}
            if not still_open and not with_usage:
                chunk["system_fingerprint"] = FINGERPRINT
            yield event(chunk)
    if with_usage:
        counts = usage(job.prompt_tokens, generated)
        yield event({**head, "choices": [], "usage": counts, "system_fingerprint": FINGERPRINT})
    yield DONE


def _delta(news: Said, body: Mapping[str, Any], offset: int) -> Fields:
    steps = [news.step] if news.step else []
    return {
        "index": news.choice,
        "text": "".join(step.text for step in steps),
        "logprobs": _logprobs(steps, body, first=news.position, offset=offset) if steps else None,
        "finish_reason": news.finish,
        "stop_reason": news.stop_reason,
        "prompt_token_ids": None,
        "token_ids": None,
    }


def _script(body: Mapping[str, Any], prompt: str, choice: int, options: VllmOptions) -> Script:
    asked = body.get("max_tokens")
    most = checks.fitting(tokens.count(prompt), _DEFAULT_TOKENS if asked is None else asked, options)
    limits = limits_of(body, most)
    said = script([Segment("content", prose({**body, "prompt": prompt}, prompt, choice, limits))], limits)
    if not body.get("echo"):
        return said
    first = said.steps[0]
    return replace(said, steps=(replace(first, text=prompt + first.text), *said.steps[1:]))


def _prompts(prompt: object) -> list[str]:
    """The four ways to give prompts: a text, texts, token numbers, lists of token numbers."""
    given = prompt if isinstance(prompt, list) and not _is_numbers(prompt) else [prompt]
    if not given:
        raise Refusal(400, "Either prompt or prompt_embeds must be provided and non-empty.", param="prompt")
    return [_prompt(one) for one in given]


def _prompt(prompt: object) -> str:
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and _is_numbers(prompt):
        try:
            return tokens.text_of(prompt)
        except ValueError as error:
            raise Refusal(400, str(error), param="prompt") from None
    raise Refusal(400, "prompt must be a string, array of strings, array of tokens, or array of token arrays")


def _is_numbers(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(one, int) for one in value)


def _logprobs(
    steps: Sequence[Step], body: Mapping[str, Any], *, first: int = 0, offset: int = 0
) -> Fields | None:
    """The older form of probabilities: four lists side by side, None where not asked for."""
    tops = body.get("logprobs")
    if tops is None or tops is False:
        return None
    entries = [logprob(step, first + index, max(1, int(tops))) for index, step in enumerate(steps)]
    offsets = []
    for step in steps:
        offsets.append(offset)
        offset += len(step.text)
    return {
        "text_offset": offsets,
        "token_logprobs": [entry["logprob"] for entry in entries],
        "tokens": [entry["token"] for entry in entries],
        "top_logprobs": [
            {top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in entries
        ],
    }
