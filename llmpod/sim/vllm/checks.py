"""What the real server refuses in a request body, in its words. Not the meaning of the fields."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from llmpod.sim.vllm.http import Refusal
from llmpod.sim.vllm.options import VllmOptions

Problem = dict[str, Any]

_NUMBERS: Mapping[str, type] = {
    "max_tokens": int,
    "max_completion_tokens": int,
    "max_output_tokens": int,
    "min_tokens": int,
    "n": int,
    "seed": int,
    "top_k": int,
    "top_logprobs": int,
    "dimensions": int,
    "top_n": int,
    "temperature": float,
    "top_p": float,
    "presence_penalty": float,
    "frequency_penalty": float,
}
_MOST_CHOICES, _MOST_LOGPROBS = 128, 20
_SWITCHES = ("stream", "ignore_eos", "echo", "parallel_tool_calls", "include_stop_str_in_output")
_SHAPES: Mapping[str, tuple[type, ...]] = {
    "chat_template_kwargs": (dict,),
    "instructions": (str,),
    "logprobs": (int, bool),
    "messages": (list,),
    "model": (str,),
    "response_format": (dict,),
    "stop": (str, list),
    "stop_sequences": (list,),
    "stream_options": (dict,),
    "tokens": (list,),
    "tool_choice": (dict, str),
    "tools": (list,),
}
_SHAPE_PROBLEMS = {dict: "dict_type", str: "string_type", list: "list_type", bool: "bool_type"}
_TRUE, _FALSE = ("1", "true", "on", "t", "y", "yes"), ("0", "false", "off", "f", "n", "no")
_TEXT = {
    "int_parsing": "Input should be a valid integer, unable to parse string as an integer",
    "int_type": "Input should be a valid integer",
    "int_from_float": "Input should be a valid integer, got a number with a fractional part",
    "float_parsing": "Input should be a valid number, unable to parse string as a number",
    "float_type": "Input should be a valid number",
    "bool_parsing": "Input should be a valid boolean, unable to interpret input",
    "bool_type": "Input should be a valid boolean",
    "string_type": "Input should be a valid string",
    "dict_type": "Input should be a valid dictionary",
    "list_type": "Input should be a valid list",
}


class _Wrong(Exception):
    """A value of another type than the field's; the text is pydantic's name for the problem."""


def parsed(raw: bytes, *, required: Sequence[str] = ()) -> dict[str, Any]:
    """The body of a request, its scalars in the type of their field.

    Raises Refusal (400) for what is no JSON object, lacks a required field, or has a value of a wrong type.
    """
    body = _json(raw)
    problems = [_missing(body, name) for name in required if name not in body]
    for name, value in list(body.items()):
        try:
            body[name] = _typed(name, value, optional=name not in required)
        except _Wrong as wrong:
            problems.append(
                {"type": str(wrong), "loc": f"body.{name}", "msg": _TEXT[str(wrong)], "input": value}
            )
    if problems:
        raise _invalid(problems)
    return body


def known_model(body: Mapping[str, Any], options: VllmOptions) -> None:
    """Raises Refusal (404) for a model that is not served. No model named means the served one."""
    asked = body.get("model")
    if asked is not None and asked != options.name:
        message = f"The model `{asked}` does not exist. Valid aliases: {options.name}."
        raise Refusal(404, message, kind="NotFoundError", param="model")


def sane(body: Mapping[str, Any], options: VllmOptions) -> None:
    """Raises Refusal (400) for sampling parameters out of their range."""
    _at_least(body, "temperature", 0.0, "must be non-negative")
    _at_least(body, "n", 1, "must be at least 1")
    if (choices := body.get("n") or 1) > _MOST_CHOICES:
        raise _bad("n", choices, f"n must be at most {_MOST_CHOICES}, got {choices}.")
    for name in ("logprobs", "top_logprobs"):
        if (wanted := body.get(name) or 0) not in range(_MOST_LOGPROBS + 1):
            raise _bad(name, wanted, f"{name} must be from 0 to {_MOST_LOGPROBS}, got {wanted}.")
    _at_least(body, "min_tokens", 0, "must be greater than or equal to 0")
    if (share := body.get("top_p")) is not None and not 0 < share <= 1:
        raise _bad("top_p", share, f"top_p must be in (0, 1], got {share}.")
    for name in ("presence_penalty", "frequency_penalty"):
        if (value := body.get(name)) is not None and not -2 <= value <= 2:
            raise _bad(name, value, f"{name} must be in [-2, 2], got {value}.")
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        _at_least(body, name, 1, "must be at least 1")
        if (most := body.get(name)) is not None and most > options.max_model_len:
            limit = f"{name}={most} cannot be greater than max_model_len={options.max_model_len}."
            raise _bad(name, most, f"{limit} Please request fewer output tokens.")


def fitting(prompt_tokens: int, wanted: int | None, options: VllmOptions) -> int:
    """How many tokens may be generated after a prompt. Raises Refusal (400) when prompt and answer cannot fit."""
    room = options.max_model_len - prompt_tokens
    limit = f"This model's maximum context length is {options.max_model_len} tokens."
    if room < 1:
        told = f"{limit} However, your request has {prompt_tokens} input tokens."
        raise Refusal(400, f"{told} Please reduce the length of the input messages.", param="input_tokens")
    if wanted is not None and wanted > room:
        told = (
            f"{limit} However, you requested {wanted} output tokens and your prompt contains {prompt_tokens}"
        )
        message = f"{told} input tokens, for a total of {wanted + prompt_tokens} tokens."
        raise Refusal(400, message, param="input_tokens")
    return room if wanted is None else wanted


def _json(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except json.JSONDecodeError as error:
        problem = {
            "type": "json_invalid",
            "loc": f"body.{error.pos}",
            "msg": "JSON decode error",
            "input": {},
        }
        raise _invalid([{**problem, "ctx": {"error": error.msg}}]) from None
    except (ValueError, RecursionError):  # no UTF-8, a number of thousands of digits, too deep
        raise Refusal(400, "There was an error parsing the body", kind="Bad Request") from None
    if not isinstance(body, dict):
        text = "Input should be a valid dictionary or object to extract fields from"
        raise _invalid([{"type": "model_attributes_type", "loc": "body", "msg": text, "input": body}])
    return body


def _typed(name: str, value: object, *, optional: bool) -> object:
    if value is None and optional:
        return None
    if name in _SWITCHES:
        return _switch(value)
    if name in _NUMBERS:
        return _whole(value) if _NUMBERS[name] is int else _fraction(value)
    if name in _SHAPES and not isinstance(value, _SHAPES[name]):
        raise _Wrong(_SHAPE_PROBLEMS[_SHAPES[name][-1]])
    return value


def _whole(value: object) -> int:
    match value:
        case int():
            return int(value)
        case float():
            if not value.is_integer():
                raise _Wrong("int_from_float")
            return int(value)
        case str():
            try:
                return int(value)
            except ValueError:
                raise _Wrong("int_parsing") from None
    raise _Wrong("int_type")


def _fraction(value: object) -> float:
    match value:
        case int() | float() if abs(value) <= sys.float_info.max:
            return float(value)
        case str():
            try:
                return float(value)
            except ValueError:
                raise _Wrong("float_parsing") from None
    raise _Wrong("float_type")


def _switch(value: object) -> bool:
    match value:
        case bool():
            return value
        case str() | int() if str(value).lower() in _TRUE + _FALSE:
            return str(value).lower() in _TRUE
        case str() | int():
            raise _Wrong("bool_parsing")
    raise _Wrong("bool_type")


def _missing(body: Mapping[str, Any], name: str) -> Problem:
    return {"type": "missing", "loc": f"body.{name}", "msg": "Field required", "input": body}


def _invalid(problems: Sequence[Problem]) -> Refusal:
    count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''}:"
    lines = (repr({**problem, "input": _shown(problem["input"])}) for problem in problems)
    return Refusal(400, "\n  ".join([count, *lines]), kind="Bad Request", param=problems[0]["loc"])


def _shown(value: object) -> object:
    """Containers are not repeated to the client, only measured."""
    return f"<{type(value).__name__} of {len(value)} items>" if isinstance(value, dict | list) else value


def _at_least(body: Mapping[str, Any], name: str, least: float, rule: str) -> None:
    if (value := body.get(name)) is not None and value < least:
        raise _bad(name, value, f"{name} {rule}, got {value}{'' if rule.endswith('1') else '.'}")


def _bad(name: str, value: object, reason: str) -> Refusal:
    return Refusal(400, f"{reason} (parameter={name}, value={value})", param=name)
