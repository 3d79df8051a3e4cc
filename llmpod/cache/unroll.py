"""Not a typewriter: makes the stream of a stored JSON answer, all at once, in the chunks a server would send.

The inverse of ``assemble``: ``assemble(unroll(answer, include_usage=True)) == answer`` for chat and text completions,
except that an empty ``tool_calls`` list goes away (clients take its presence in a delta for a call), that an
``index`` inside a tool call becomes the call's place, and that the content of a message that holds nothing at all is
the empty string. ``object`` is named as each form names it.

Each choice becomes: a chunk with the role and whatever of the message is not text; one for each text (reasoning
first); two for each tool call (its name, then its arguments); a last one with ``finish_reason`` and what else the
choice holds. Fields of the answer that stand beside the choices (llama.cpp's ``timings``) go into the last of these.

``messages.py`` and ``responses.py`` do the same for the other two APIs.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from llmpod.cache import messages, responses
from llmpod.cache.jsontext import compact
from llmpod.cache.paths import Shape, converts, shape_of
from llmpod.cache.sse import DONE, iter_frames, parse_events
from llmpod.errors import UpstreamInvalid

_EVERY_CHUNK: Final = ("id", "created", "model", "system_fingerprint", "service_tier")
_TEXTS: Final = ("reasoning", "reasoning_content", "content", "refusal")
_NO_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_FRAME_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")
_NOT_A_STREAM: Final = "The stored answer cannot be sent as a stream."
_END: Final = f"data: {DONE}\n\n".encode()


def unroll(answer: bytes, *, path: str, include_usage: bool) -> bytes:
    """The body of a stream for a JSON answer. Pure.

    Args:
        answer: the JSON document.
        path: where it was asked for.
        include_usage: send the usage frame, as ``stream_options.include_usage`` asks.

    Raises:
        UpstreamInvalid: it is no answer of that path, or the path's answers cannot be converted.
    """
    document = _document(answer, path)
    try:
        return _unrolled(document, shape_of(path), include_usage=include_usage)
    except (KeyError, TypeError, ValueError, AttributeError):  # a member of a type that it never has
        raise UpstreamInvalid(_NOT_A_STREAM) from None


def _unrolled(document: dict[str, Any], shape: Shape, *, include_usage: bool) -> bytes:
    if shape is Shape.MESSAGES:
        return b"".join(map(_named_frame, messages.unroll(document)))
    if shape is Shape.RESPONSES:
        return b"".join(map(_named_frame, responses.unroll(document)))
    choices = _choices(document)
    chat = shape is Shape.CHAT
    base: dict[str, Any] = {name: document[name] for name in _EVERY_CHUNK if name in document}
    base["object"] = "chat.completion.chunk" if chat else "text_completion"
    parts = [part for choice in choices for part in (_chat if chat else _text)(choice)]
    chunks = [{**base, "choices": [part]} for part in parts]
    rest = {name: value for name, value in document.items() if name not in {*base, "choices", "usage"}}
    if chunks:
        chunks[-1] |= rest
    if include_usage and "usage" in document:
        chunks.append({**base, "choices": [], "usage": document["usage"]})
    return b"".join(map(_frame, chunks)) + _END


def _document(answer: bytes, path: str) -> dict[str, Any]:
    try:
        document = json.loads(answer) if converts(path) else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UpstreamInvalid(_NOT_A_STREAM)
    return document


def _choices(document: dict[str, Any]) -> list[dict[str, Any]]:
    choices = document.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise UpstreamInvalid(_NOT_A_STREAM)
    return choices


def _named_frame(event: dict[str, Any]) -> bytes:
    """Events of these two APIs bear their type twice."""
    return b"event: %b\n" % event["type"].encode() + _frame(event)


def _frame(chunk: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % compact(chunk)


def _text(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    index, said = choice.get("index", 0), {"text": choice.get("text") or ""}
    yield {"index": index, **said, **_logprobs(choice), "finish_reason": None}
    yield {**_rest(choice), "index": index, "text": ""}


def _chat(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    index, logprobs = choice.get("index", 0), _logprobs(choice)
    for delta in _deltas(choice.get("message") or {}):
        part = {"index": index, "delta": delta, "finish_reason": None}
        if delta.get("content") or delta.get("refusal"):
            part, logprobs = {**part, **logprobs}, {}
        yield part
    yield {**_rest(choice), **logprobs, "index": index, "delta": {}}


def _logprobs(choice: dict[str, Any]) -> dict[str, Any]:
    return {"logprobs": choice["logprobs"]} if "logprobs" in choice else {}


def _rest(choice: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in choice.items() if name not in {"message", "text", "logprobs"}}


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The message in pieces, the first one with the role."""
    content, calls = message.get("content"), message.get("tool_calls")
    texts = {name: message[name] for name in _TEXTS if isinstance(message.get(name), str) and message[name]}
    opening = {name: value for name, value in message.items() if name not in {*texts, "tool_calls"}}
    opening = {"role": "assistant", **opening}
    if "content" in texts:
        opening["content"] = ""
    # "" beside a call is told apart from null by a chunk of its own: see assemble
    alone = content == "" and bool(calls or texts or message.get("function_call"))
    if alone:
        del opening["content"]
    yield opening
    if alone:
        yield {"content": ""}
    for name, text in texts.items():
        yield {name: text}
    for index, call in enumerate(calls if isinstance(calls, list) else ()):
        yield from _call(call, index)


def _call(call: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    function = call.get("function")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(arguments, str):
        yield {"tool_calls": [{**call, "index": index}]}
        return
    yield {"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]}
    yield {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}


def strip_usage(frames: bytes) -> bytes:
    """A stream's body without the usage-only frame, for a client that did not ask for it; the rest byte-exact.

    A frame goes when it has ``choices: []`` and ``usage``; what else a server hangs onto it (vLLM its
    ``system_fingerprint``, llama.cpp its ``timings``) goes along, as a client that did not ask would trip over a
    chunk without choices.
    """
    return b"".join(frame for frame in iter_frames(frames) if not _is_usage(frame))


class UsageFilter:
    """``strip_usage`` for a stream that is still coming: holds back a frame only until it is complete.

    Attributes:
        taken: the frame that was taken out; empty until it has come.
    """

    __slots__ = ("_held", "taken")

    def __init__(self) -> None:
        self._held = b""
        self.taken = b""

    def feed(self, chunk: bytes) -> bytes:
        """What may go on of the next bytes of the stream; perhaps nothing."""
        if not self._held and chunk.endswith(b"\n\n") and b'"usage"' not in chunk:
            return chunk
        frames = list(iter_frames(self._held + chunk))
        self._held = b"" if not frames or frames[-1].endswith(_FRAME_ENDS) else frames.pop()
        kept = []
        for frame in frames:
            if _is_usage(frame):
                self.taken = frame
            else:
                kept.append(frame)
        return b"".join(kept)

    def rest(self) -> bytes:
        """What is left at the end of the stream: a frame that lacks its blank line."""
        rest, self._held = self._held, b""
        return rest


def _is_usage(frame: bytes) -> bool:
    if b'"usage"' not in frame or _NO_CHOICES.search(frame) is None:
        return False
    try:
        chunks = [json.loads(event.data) for event in parse_events(frame)]
    except (ValueError, RecursionError, UpstreamInvalid):
        return False
    return any(
        isinstance(chunk, dict) and chunk.get("choices") == [] and chunk.get("usage") for chunk in chunks
    )
