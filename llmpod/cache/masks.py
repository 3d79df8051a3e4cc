"""Not the key: named rules that take out of a question what changes with every call and not the answer.

Each is switched by its name (``cache_masks``). Seen with real clients (docs: what clients send, measured): Codex gives
every input item a new ``id``; Kilo Code adds the second at which it was asked to each user message, in a block of its
own (``<environment_details>``, read in its CLI 7.7.7). A rule leaves all that might matter: an ``id`` that others
refer to, the day of a stamp.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from llmpod.cache.paths import Shape

Body = dict[str, Any]

# items whose ``id`` is a label only; what an answer or a reference names by it (item_reference, mcp and local shell
# calls) keeps it. Tool calls and their outputs belong together by ``call_id``, which always counts.
_LABELLED: Final = frozenset(
    {
        *(None, "message", "reasoning", "function_call", "function_call_output"),
        *("custom_tool_call", "custom_tool_call_output"),
    }
)
_STAMP_START: Final = "Message time: "
_TIMED: Final = r"Message time: \d{4}-\d\d-\d\d)T\d\d:\d\d:\d\dZ(?!\w)"
_STAMP: Final = re.compile(rf"(?<!\w)({_TIMED}")  # in the last user message: whatever stands around it
_BLOCK: Final = re.compile(rf"(<environment_details>\s+{_TIMED}")  # in those before it: only as Kilo puts it


def _without_item_ids(body: Body) -> Body:
    items = body.get("input")
    if not isinstance(items, list) or not any(map(_is_labelled, items)):
        return body
    bare = [_without_id(item) if _is_labelled(item) else item for item in items]
    return {**body, "input": bare}


def _is_labelled(item: object) -> bool:
    if not isinstance(item, dict) or "id" not in item:
        return False
    kind = item.get("type")
    return (kind is None or isinstance(kind, str)) and kind in _LABELLED


def _without_id(item: Body) -> Body:
    return {name: value for name, value in item.items() if name != "id"}


def _without_kilo_time(body: Body) -> Body:
    messages = body.get("messages")
    if not isinstance(messages, list) or not any(map(_may_bear_stamps, messages)):
        return body
    changed, stamp = list[Any](), _STAMP
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user" and "content" in message:
            changed.append({**message, "content": _to_the_day(message["content"], stamp)})
            stamp = _BLOCK
        else:
            changed.append(message)
    return {**body, "messages": changed[::-1]}


def _may_bear_stamps(message: object) -> bool:
    """False only where there is none; saves most questions the copying."""
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, list) or (isinstance(content, str) and _STAMP_START in content)


def _to_the_day(content: Any, stamp: re.Pattern[str]) -> Any:
    """A message's content, as text or in parts, without the time of day in a stamp."""
    if isinstance(content, str):
        return stamp.sub(r"\1", content) if _STAMP_START in content else content
    if isinstance(content, list):
        return [
            {**part, "text": _to_the_day(part["text"], stamp)}
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else part
            for part in content
        ]
    return content


_RULES: Final[Mapping[str, tuple[Shape, Callable[[Body], Body]]]] = {
    "item-ids": (Shape.RESPONSES, _without_item_ids),
    "kilo-time": (Shape.CHAT, _without_kilo_time),
}
_RULES_OF: Final = {
    shape: [(name, rule) for name, (concerned, rule) in _RULES.items() if concerned is shape]
    for shape in Shape
}
MASKS: Final = tuple(_RULES)


def masked(body: Body, shape: Shape, names: frozenset[str]) -> Body:
    """The question without what the named rules take out of it; the body itself is left as it is."""
    for name, rule in _RULES_OF[shape]:
        if name in names:
            body = rule(body)
    return body
