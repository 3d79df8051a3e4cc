"""Not a JSON Schema engine: the few checks from which the request contracts are built, with the server's wording."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Check = Callable[[Any, str], Iterator[str]]
"""Yields what is wrong with a value at a path (`$.gpu.id`)."""


def kind(value: Any) -> str:
    """The JSON type of a value. A number without fraction is an integer (JSON Schema, 6.1.1)."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    names = {float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def of_kind(*wanted: str) -> Check:
    """A value of one of these JSON types."""

    def check(value: Any, path: str) -> Iterator[str]:
        if kind(value) not in wanted:
            yield f"{path}: got {kind(value)}, want {' or '.join(wanted)}"

    return check


def string(*, least: int = 0, pattern: str | None = None) -> Check:
    """A string of at least so many characters that matches the pattern."""

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"{path}: got {kind(value)}, want string"
        elif len(value) < least:
            yield f"{path}: minLength: got {len(value)}, want {least}"
        elif pattern and not re.search(pattern, value):
            yield f"{path}: {value!r} does not match pattern {pattern!r}"

    return check


def integer(*, least: int) -> Check:
    """An integer that is not below `least`."""

    def check(value: Any, path: str) -> Iterator[str]:
        if kind(value) != "integer":
            yield f"{path}: got {kind(value)}, want integer"
        elif value < least:
            yield f"{path}: minimum: got {value}, want {least}"

    return check


def one_of(*words: str) -> Check:
    """One of these strings."""
    listed = ", ".join(f"'{word}'" for word in words)

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, str) or value not in words:
            yield f"{path}: value must be one of {listed}"

    return check


def array(item: Check, *, most: int | None = None) -> Check:
    """A list of such items."""

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{path}: got {kind(value)}, want array"
            return
        if most is not None and len(value) > most:
            yield f"{path}: maxItems: got {len(value)}, want {most}"
        for index, one in enumerate(value):
            yield from item(one, f"{path}[{index}]")

    return check


def mapping(item: Check) -> Check:
    """An object whose values are all such items."""

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path}: got {kind(value)}, want object"
            return
        for key, one in value.items():
            yield from item(one, f"{path}.{key}")

    return check


def record(properties: Mapping[str, Check], *required: str) -> Check:
    """An object with these properties and no others."""

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path}: got {kind(value)}, want object"
            return
        yield from missing(value, path, *required)
        for key, one in value.items():
            if key in properties:
                yield from properties[key](one, f"{path}.{key}")
        yield from unexpected([key for key in value if key not in properties], path)

    return check


def missing(value: Mapping[str, Any], path: str, *required: str) -> Iterator[str]:
    """One sentence for all required properties that are not there."""
    lacking = [name for name in required if name not in value]
    if lacking:
        word = "property" if len(lacking) == 1 else "properties"
        yield f"{path}: missing {word} {_quoted(lacking)}"


def unexpected(names: list[str], path: str) -> Iterator[str]:
    """One sentence for all properties that nobody knows."""
    if names:
        yield f"{path}: additional properties {_quoted(names)} not allowed"


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
