"""Not a translator between APIs: OpenAI's Responses as one document and as a stream of events, both ways.

The last event of a stream holds the whole document, so nothing is put together. The events of a document are those
of the API reference ("Streaming events") for messages and function calls; items of other kinds begin and are done.
"""

from collections.abc import Iterator
from typing import Any, Final

from llmpod.cache.sse import RESPONSES_END
from llmpod.errors import UpstreamInvalid

_TEXTS: Final = {"output_text": "text", "refusal": "refusal"}  # kind of part -> its text


def assemble(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The response that a stream's last event holds. Raises UpstreamInvalid."""
    for event in reversed(events):
        if event.get("type") in RESPONSES_END and isinstance(event.get("response"), dict):
            found: dict[str, Any] = event["response"]
            return found
    raise UpstreamInvalid("The model server's stream held no finished response.")


def unroll(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of a response, numbered. Raises UpstreamInvalid when it is none, or is not finished."""
    items, end = response.get("output"), f"response.{response.get('status')}"
    if not isinstance(items, list) or end not in RESPONSES_END or not all(isinstance(i, dict) for i in items):
        raise UpstreamInvalid("The stored answer cannot be sent as a stream.")
    for number, event in enumerate(_events(response, items, end)):
        yield {**event, "sequence_number": number}


def _events(response: dict[str, Any], items: list[dict[str, Any]], end: str) -> Iterator[dict[str, Any]]:
    begun = {**response, "status": "in_progress", "output": []}
    for name in ("usage", "incomplete_details", "completed_at"):
        if name in begun:
            begun[name] = None
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(items):
        yield from _item(item, index)
    yield {"type": end, "response": response}


def _item(item: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    place = {"output_index": index}
    opening = {**item, "status": "in_progress"} if "status" in item else dict(item)
    parts, arguments = item.get("content"), item.get("arguments")
    speaks = item.get("type") == "message" and isinstance(parts, list)
    calls = item.get("type") == "function_call" and isinstance(arguments, str)
    if speaks:
        opening["content"] = []
    elif calls:
        opening["arguments"] = ""
    yield {"type": "response.output_item.added", **place, "item": opening}
    here = {**place, "item_id": item.get("id")}
    if speaks and isinstance(parts, list):
        for number, part in enumerate(parts):
            yield from _part(part, {**here, "content_index": number})
    if calls:
        kind = "response.function_call_arguments"
        yield {"type": f"{kind}.delta", **here, "delta": arguments}
        yield {"type": f"{kind}.done", **here, "arguments": arguments, "name": item.get("name")}
    yield {"type": "response.output_item.done", **place, "item": item}


def _part(part: Any, here: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = part.get("type") if isinstance(part, dict) else None
    name = _TEXTS.get(kind) if isinstance(kind, str) else None
    opening = {**part, name: ""} if name else part
    yield {"type": "response.content_part.added", **here, "part": opening}
    if name:
        logprobs = {"logprobs": part.get("logprobs") or []} if name == "text" else {}
        yield {"type": f"response.{kind}.delta", **here, "delta": part.get(name), **logprobs}
        yield {"type": f"response.{kind}.done", **here, name: part.get(name), **logprobs}
    yield {"type": "response.content_part.done", **here, "part": part}
