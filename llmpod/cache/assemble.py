"""Not a client library: makes the JSON answer out of the chunks of a stream, as the same server would have sent it.

What follows is about chat and text completions; ``messages.py`` and ``responses.py`` know the other two APIs. Fields
are not listed one by one, so what nobody has heard of yet is kept too; what decides is where a field stands:

- in a chunk: the first ``id``, ``created`` and ``model``; of anything else the last value that is not null (``usage``,
  vLLM's ``system_fingerprint``, which only its last chunk has, llama.cpp's ``timings``, …). ``object`` loses
  ``.chunk``.
- in a choice: the last value that is not null (``finish_reason``, ``stop_reason``); lists are joined (``token_ids``),
  those inside objects too (``logprobs``); so is ``text``.
- in a delta: strings are joined (``content``, ``reasoning``, ``reasoning_content``, ``refusal``, ``arguments``); lists
  are joined, or merged by ``index`` where their items have one (``tool_calls``, which then lose it); ids, types, roles
  and names are taken once, as some servers repeat them.

Null and absent mean the same: vLLM's JSON form spells out nulls (``refusal``, ``annotations``, ``function_call``,
``prompt_logprobs``, …) that its stream does not mention, and they stay away here. ``message.content`` is always
there. Beside tool calls or reasoning it is null when the stream had no text but the empty string with which vLLM
opens every message, as in vLLM's JSON form; and it is the empty string in a message that holds nothing else.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from llmpod.cache import messages, responses
from llmpod.cache.jsontext import compact
from llmpod.cache.paths import Shape, converts, shape_of
from llmpod.cache.sse import DONE, parse_events
from llmpod.errors import UpstreamInvalid

_ONCE: Final = frozenset({"id", "type", "role", "name", "index"})
_FIRST: Final = frozenset({"id", "created", "model"})
_INSTEAD_OF_TEXT: Final = ("tool_calls", "function_call", "reasoning", "reasoning_content")


def assemble(frames: bytes, *, path: str) -> bytes:
    """The JSON answer for a stream's body. Pure; about 4 µs a frame.

    Does not judge whether the stream is complete: that is ``answer.verdict``.

    Args:
        frames: the body of the stream; ``[DONE]`` and comments may be there or not.
        path: where it was asked for.

    Raises:
        UpstreamInvalid: a frame is no JSON object or holds an error, or there is no choice in any of them; or the
            path's answers cannot be converted.
    """
    if not converts(path):
        raise UpstreamInvalid(f"A stream of {path} cannot be turned into one JSON document.")
    chunks = (_chunk(event.data) for event in parse_events(frames) if event.data.strip() != DONE)
    try:
        return compact(_answer(shape_of(path), chunks))
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # a member of a type that it never has
        raise UpstreamInvalid(f"The model server's events cannot be put together ({error!r}).") from None


def _answer(shape: Shape, chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    if shape is Shape.MESSAGES:
        return messages.assemble(list(chunks))
    if shape is Shape.RESPONSES:
        return responses.assemble(list(chunks))
    assembly = _Assembly(chat=shape is Shape.CHAT)
    for chunk in chunks:
        assembly.take(chunk)
    return assembly.answer()


def _chunk(data: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        raise UpstreamInvalid("The model server's stream held a frame that is not JSON.") from None
    if not isinstance(chunk, dict) or chunk.get("error"):
        raise UpstreamInvalid("The model server reported an error within its stream.")
    return chunk


class _Text:
    """A string that is still growing; joined once, at the end, so that a long answer does not cost its square."""

    __slots__ = ("pieces",)

    def __init__(self, *pieces: str) -> None:
        self.pieces = list(pieces)


class _Assembly:
    """An answer in the making. Owns the chunks that it is given."""

    def __init__(self, *, chat: bool) -> None:
        self._chat = chat
        self._fields: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._opened: set[int] = set()  # choices whose first chunk has the role and the empty text

    def take(self, chunk: dict[str, Any]) -> None:
        parts = chunk.pop("choices", None)
        for name, value in chunk.items():
            if self._fields.get(name) is None or (value is not None and name not in _FIRST):
                self._fields[name] = value
        for part in parts if isinstance(parts, list) else ():
            index = part.get("index", 0) if isinstance(part, dict) else None
            if not isinstance(index, int):
                raise UpstreamInvalid("The model server's stream held a choice without a number.")
            self._take_choice(index, part)

    def _take_choice(self, index: int, part: dict[str, Any]) -> None:
        choice = self._choices.setdefault(index, {"index": index})
        for name, value in part.items():
            if name == "delta":
                self._take_delta(index, value or {}, choice.setdefault("message", {}))
            elif name == "text":
                choice["text"] = _merge(choice.get("text"), value or "")
            elif name != "index":
                choice[name] = _extend(choice.get(name), value)

    def _take_delta(self, index: int, delta: dict[str, Any], message: dict[str, Any]) -> None:
        if "role" in delta and delta.get("content") == "" and "content" not in message:
            self._opened.add(index)
        for name, value in delta.items():
            message[name] = _member(name, message.get(name), value)

    def answer(self) -> dict[str, Any]:
        if not self._choices:
            raise UpstreamInvalid("The model server's stream held no choice.")
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._fields, "object": kind, "choices": [self._choice(at) for at in sorted(self._choices)]}

    def _choice(self, index: int) -> dict[str, Any]:
        choice: dict[str, Any] = _finished(self._choices[index])
        choice.setdefault("finish_reason", None)
        if not self._chat:
            choice.setdefault("text", "")
            return choice
        message = {"role": "assistant", "content": None, **choice.get("message", {})}
        if index in self._opened and not message["content"] and any(map(message.get, _INSTEAD_OF_TEXT)):
            message["content"] = None
        elif not any(value for name, value in message.items() if name != "role"):
            message["content"] = ""
        if isinstance(message.get("tool_calls"), list):
            message["tool_calls"] = _calls(message["tool_calls"])
        return {**choice, "message": message}


def _extend(known: Any, value: Any) -> Any:
    """Choice fields: the last value that is not null, lists joined at any depth of objects."""
    if value is None:
        return known
    if isinstance(known, list) and isinstance(value, list):
        known += value
        return known
    if isinstance(known, dict) and isinstance(value, dict):
        known.update({name: _extend(known.get(name), item) for name, item in value.items()})
        return known
    return value


def _member(name: str, known: Any, value: Any) -> Any:
    """A member of a delta, or of an object inside it."""
    if name in _ONCE and (known or value is None):
        return known
    return _merge(known, value)


def _merge(known: Any, value: Any) -> Any:
    """What comes is a continuation of what is known."""
    if value is None:
        return known
    if isinstance(value, list):
        return _merge_lists(known if isinstance(known, list) else [], value)
    if isinstance(known, _Text) and isinstance(value, str):
        known.pieces.append(value)
        return known
    if isinstance(known, str) and isinstance(value, str):
        return _Text(known, value)
    if isinstance(known, dict) and isinstance(value, dict):
        known.update({name: _member(name, known.get(name), item) for name, item in value.items()})
        return known
    return value


def _merge_lists(known: list[Any], more: list[Any]) -> list[Any]:
    for item in more:
        place = _place(known, item)
        if place is None:
            known.append(item)
        else:
            known[place] = _merge(known[place], item)
    return known


def _place(items: list[Any], item: Any) -> int | None:
    """Where the item is that this one continues."""
    index = item.get("index") if isinstance(item, dict) else None
    if not isinstance(index, int):
        return None
    same = (at for at, known in enumerate(items) if isinstance(known, dict) and known.get("index") == index)
    return next(same, None)


def _finished(value: Any) -> Any:
    """The same value with all texts joined."""
    if isinstance(value, _Text):
        return "".join(value.pieces)
    if isinstance(value, dict):
        return {name: _finished(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finished(item) for item in value]
    return value


def _calls(calls: list[Any]) -> list[Any]:
    """Tool calls in order, without the number that only a stream needs."""
    if not all(isinstance(call, dict) for call in calls):
        return calls
    ordered = sorted(calls, key=lambda call: index if isinstance(index := call.get("index"), int) else 0)
    return [{name: value for name, value in call.items() if name != "index"} for call in ordered]
