"""Not a translator between APIs: Anthropic's Messages as one document and as a stream of events, both ways.

The document is that of the first event with the blocks that follow filled in (Anthropic API reference, "Streaming
messages"): texts, thoughts and signatures are joined, the pieces of a tool's input are one JSON text, citations are
a list. What the last delta says (``stop_reason``, ``usage`` …) replaces what the first event said. A delta of a kind
that is not known here is not guessed at.

``assemble(unroll(message)) == message``, except that a message without ``usage`` stays without.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from llmpod.errors import UpstreamInvalid

# kind of delta -> its member, and the member of the block that it continues
_JOINED: Final = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
}
_INPUT: Final = "input_json_delta"
_CITATIONS: Final = "citations_delta"


def assemble(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a stream's events are. Raises UpstreamInvalid."""
    message: dict[str, Any] | None = None
    blocks: dict[int, dict[str, Any]] = {}
    inputs: dict[int, list[str]] = {}
    try:
        for event in events:
            kind = event.get("type")
            if kind == "message_start":
                message = dict(event["message"])
            elif kind == "content_block_start":
                blocks[event["index"]] = dict(event["content_block"])
            elif kind == "content_block_delta":
                _continue(blocks[event["index"]], event["delta"], inputs.setdefault(event["index"], []))
            elif kind == "message_delta" and message is not None:
                _end(message, event)
        for index, pieces in inputs.items():
            if text := "".join(pieces):
                blocks[index]["input"] = json.loads(text)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UpstreamInvalid(f"The model server's events cannot be put together ({error!r}).") from None
    if message is None:
        raise UpstreamInvalid("The model server's stream held no message.")
    return {**message, "content": [blocks[index] for index in sorted(blocks)]}


def _continue(block: dict[str, Any], delta: dict[str, Any], pieces: list[str]) -> None:
    kind = delta["type"]
    if kind in _JOINED:
        given, member = _JOINED[kind]
        block[member] = (block.get(member) or "") + delta[given]
    elif kind == _INPUT:
        pieces.append(delta["partial_json"])
    elif kind == _CITATIONS:
        block["citations"] = [*(block.get("citations") or []), delta["citation"]]
    else:
        raise ValueError(kind)


def _end(message: dict[str, Any], event: dict[str, Any]) -> None:
    message.update(event.get("delta") or {})
    message.update({name: value for name, value in event.items() if name not in {"type", "delta", "usage"}})
    if event.get("usage") is not None:
        message["usage"] = {**(message.get("usage") or {}), **event["usage"]}


def unroll(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of a message. Raises UpstreamInvalid when it is none."""
    blocks = message.get("content")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise UpstreamInvalid("The stored answer cannot be sent as a stream.")
    last = {name: message[name] for name in ("stop_reason", "stop_sequence") if name in message}
    yield {"type": "message_start", "message": {**message, **dict.fromkeys(last), "content": []}}
    for index, block in enumerate(blocks):
        opening, deltas = _pieces(block)
        yield {"type": "content_block_start", "index": index, "content_block": opening}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    usage = {"usage": message["usage"]} if message.get("usage") is not None else {}
    yield {"type": "message_delta", "delta": last, **usage}
    yield {"type": "message_stop"}


def _pieces(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it begins, and what is added to it."""
    opening, deltas = dict(block), []
    for kind, (given, member) in _JOINED.items():
        if isinstance(text := block.get(member), str) and text:
            opening[member] = ""
            deltas.append({"type": kind, given: text})
    if isinstance(given_input := block.get("input"), dict) and given_input:
        opening["input"] = {}
        deltas.append({"type": _INPUT, "partial_json": json.dumps(given_input, ensure_ascii=False)})
    return opening, deltas
