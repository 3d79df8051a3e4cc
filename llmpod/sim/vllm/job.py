"""From a chat request to the scripts of its answer. Not the form of the answer: chat.py, messages.py, responses.py."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpod.sim.vllm import checks, schema, tokens, words
from llmpod.sim.vllm.http import Refusal
from llmpod.sim.vllm.options import VllmOptions
from llmpod.sim.vllm.script import Limits, Script, Segment, script

_AUTO_REFUSED = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'


@dataclass(frozen=True)
class Job:
    """Everything that is known before the first token: one script a choice, and the names of the tools called."""

    scripts: tuple[Script, ...]
    prompt_tokens: int
    most: int = 0
    """How many tokens a choice may have."""
    tools: tuple[str, ...] = ()


def chat_job(body: Mapping[str, Any], options: VllmOptions) -> Job:
    """The job of a checked chat body. Raises Refusal (400, 404)."""
    checks.known_model(body, options)
    checks.sane(body, options)
    messages = _messages(body)
    prompt_tokens = sum(tokens.count(f"<|{role}|>{text}") for role, text in messages) + 1
    asked = body.get("max_completion_tokens") or body.get("max_tokens")
    limits = limits_of(body, checks.fitting(prompt_tokens, asked, options))
    about = next((text for role, text in reversed(messages) if role == "user"), "")
    called = _called(body, options)
    reasons = thinks(body, options)
    scripts = []
    for choice in range(body.get("n") or 1):
        meaning = words.meaning(body)
        segments: list[Segment] = []
        if reasons:
            segments.append(Segment("reasoning", words.thoughts(words.dice("think", meaning, choice), about)))
        segments += _arguments(called, meaning, choice) or [_content(body, about, choice, limits)]
        scripts.append(script(segments, limits, finish="tool_calls" if called else "stop"))
    return Job(tuple(scripts), prompt_tokens, limits.most, tuple(name for name, _ in called))


def limits_of(body: Mapping[str, Any], most: int) -> Limits:
    """Where the answers of a request end. Raises Refusal (400) for an empty stop string."""
    stop = body.get("stop") or []
    stops = (stop,) if isinstance(stop, str) else tuple(map(str, stop))
    if "" in stops:
        raise Refusal(400, "stop cannot contain an empty string.", param="stop")
    keep = bool(body.get("include_stop_str_in_output"))
    return Limits(most, stops, keep_stop=keep, ignore_end=bool(body.get("ignore_eos")))


def prose(body: Mapping[str, Any], about: str, choice: int, limits: Limits) -> str:
    """Text of natural length, or longer where min_tokens or ignore_eos ask for it."""
    rolls = words.dice(words.meaning(body), choice)
    text = words.natural(rolls, about)
    wanted = limits.most if limits.ignore_end else min(body.get("min_tokens") or 0, limits.most)
    more = words.endless(rolls)
    while (missing := wanted - tokens.count(text)) > 0:
        # a token is at most four bytes, so this many characters are never too many by more than a sentence
        part = ""
        while len(part) < missing * 2:
            part += next(more)
        text += part
    return text


def thinks(body: Mapping[str, Any], options: VllmOptions) -> bool:
    """Whether the answer shows its reasoning: by request, or because of the model's name."""
    kwargs = body.get("chat_template_kwargs")
    asked = kwargs.get("enable_thinking") if isinstance(kwargs, dict) else None
    return bool(asked) if isinstance(asked, bool) else "think" in options.name.lower()


def text_in(content: object) -> str:
    """The text of a message's content, be it a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part.get("text") or part.get("type", "")) for part in parts if isinstance(part, dict))


def _messages(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    messages = body.get("messages") or []
    if not messages:
        raise Refusal(400, "list object has no element 0")
    if not all(isinstance(message, dict) and "role" in message for message in messages):
        raise Refusal(
            400, "1 validation error:\n  Each message needs a role", kind="Bad Request", param="body.messages"
        )
    return [(str(message["role"]), text_in(message.get("content"))) for message in messages]


def _called(body: Mapping[str, Any], options: VllmOptions) -> list[tuple[str, Any]]:
    """Name and parameter schema of each tool that the answer calls."""
    tools = [_function(tool) for tool in body.get("tools") or []]
    choice = body.get("tool_choice", "auto" if tools else "none")
    if not tools:
        if choice not in ("none", None, "auto"):
            raise Refusal(400, "When using `tool_choice`, `tools` must be set.", param="tool_choice")
        return []
    chosen: Sequence[Any] = []
    if isinstance(choice, dict):
        name = _function(choice).get("name")
        chosen = [tool for tool in tools if tool.get("name") == name]
        if not chosen:
            message = "The tool specified in `tool_choice` does not match any of the specified `tools`"
            raise Refusal(400, message, param="tool_choice")
    elif choice == "required":
        chosen = tools if body.get("parallel_tool_calls") is not False else tools[:1]
    elif choice == "auto":
        chosen = _auto(body, tools, options)
    return [(str(tool.get("name")), tool.get("parameters") or {"type": "object"}) for tool in chosen[:2]]


def _function(tool: object) -> Mapping[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        raise Refusal(400, "A tool needs a `function`.", kind="Bad Request", param="body.tools")
    return function


def _instance(wanted: object, *meaning: object) -> str:
    """JSON for a schema. Raises Refusal (400) for a schema that makes no sense, as a grammar compiler would."""
    try:
        return schema.as_json(wanted, words.dice(*meaning))
    except (AttributeError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError):
        raise Refusal(
            400, "Failed to convert the grammar from JSON schema: it is not a valid schema."
        ) from None


def _auto(body: Mapping[str, Any], tools: Sequence[Any], options: VllmOptions) -> Sequence[Any]:
    """One call, then, once its result is there, words."""
    if not options.auto_tools:
        raise Refusal(400, _AUTO_REFUSED)
    return [] if body["messages"][-1]["role"] == "tool" else tools[:1]


def _arguments(called: Sequence[tuple[str, Any]], meaning: object, choice: int) -> list[Segment]:
    return [
        Segment("tool", _instance(parameters, name, meaning, choice), index)
        for index, (name, parameters) in enumerate(called)
    ]


def _content(body: Mapping[str, Any], about: str, choice: int, limits: Limits) -> Segment:
    form = body.get("response_format")
    wanted = next(_schemas(form), None) if isinstance(form, dict) else None
    if wanted is None:
        return Segment("content", prose(body, about, choice, limits))
    return Segment("content", _instance(wanted, words.meaning(body), choice))


def _schemas(form: Mapping[str, Any]) -> Iterator[Any]:
    """The schema that a response_format asks for, if it asks for one."""
    if form.get("type") == "json_object":
        yield json.loads('{"type": "object", "properties": {"answer": {}, "sure": {"type": "boolean"}}}')
    if form.get("type") == "json_schema":
        given = form.get("json_schema")
        if not isinstance(given, dict) or not isinstance(given.get("schema"), dict):
            raise Refusal(400, "`json_schema` with a `schema` must be provided.", param="response_format")
        yield given["schema"]
