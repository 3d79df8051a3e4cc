"""Not a patch: where two JSON values differ, as paths with both values, shortened for a person. Pure."""

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

_CHARS: Final = 60
_LEAD: Final = 12
_ABSENT: Final = object()


class Difference(NamedTuple):
    """One place; a side that has nothing there is None. ``weight``: values concerned."""

    path: str
    stored: str | None
    asked: str | None
    weight: int = 1


def differences(stored: Any, asked: Any) -> Iterator[Difference]:
    """Every place at which they differ, in the order of the stored one."""
    yield from _compare("", stored, asked)


def _compare(path: str, stored: Any, asked: Any) -> Iterator[Difference]:
    if isinstance(stored, dict) and isinstance(asked, dict):
        for name in [*stored, *(name for name in asked if name not in stored)]:
            inner = f"{path}.{name}" if path else str(name)
            yield from _compare(inner, stored.get(name, _ABSENT), asked.get(name, _ABSENT))
    elif isinstance(stored, list) and isinstance(asked, list):
        for place in range(max(len(stored), len(asked))):
            yield from _compare(f"{path}[{place}]", _at(stored, place), _at(asked, place))
    elif type(stored) is not type(asked) or stored != asked:
        weight = max(_leaves(stored), _leaves(asked))
        yield Difference(path, *_shortened(stored, asked), weight)


def _at(items: list[Any], place: int) -> Any:
    return items[place] if place < len(items) else _ABSENT


def _leaves(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max(1, sum(map(_leaves, inner)))


def _shortened(stored: Any, asked: Any) -> tuple[str | None, str | None]:
    """Both as JSON, cut to where they differ."""
    old, new = _text(stored), _text(asked)
    same = 0
    if old is not None and new is not None:
        both = zip(old, new, strict=False)
        same = next((place for place, (a, b) in enumerate(both) if a != b), min(len(old), len(new)))
    start = same - _LEAD if same > _LEAD + 8 else 0
    return _cut(old, start), _cut(new, start)


def _text(value: Any) -> str | None:
    return None if value is _ABSENT else json.dumps(value, ensure_ascii=False)


def _cut(text: str | None, start: int) -> str | None:
    if text is None:
        return None
    shown = text[start : start + _CHARS]
    return f"{'…' if start else ''}{shown}{'…' if start + _CHARS < len(text) else ''}"
