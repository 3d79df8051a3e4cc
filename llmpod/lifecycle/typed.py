"""Not a schema: builds a dataclass from what a JSON file holds, and takes nothing of another type than it declares.

The files are ours, but people edit them, disks damage them and other versions write them. A value that is wrong must
be found when it is read, not in the middle of a pass.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_MOST = 253_402_214_400.0  # the last day of the year 9999: no time, no price and no count of ours is larger


def typed(kind: type[T], item: object) -> T:
    """``item`` as the dataclass ``kind``, with every field of the type that its annotation names.

    Raises:
        ValueError: it is none: another type, a number that no time or price can be, an unknown or a missing field.
    """
    if not isinstance(item, Mapping) or not is_dataclass(kind):
        raise _wrong(kind, item)
    known, hints = {field.name: field for field in fields(kind)}, _hints(kind)
    if unknown := sorted(map(str, set(item) - set(known))):
        raise ValueError(f"unknown fields {unknown}")
    for name, field in known.items():
        if name not in item and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{name} is missing")
    return kind(**{name: _value(hints[name], value, name) for name, value in item.items()})


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    """Worked out anew for each record they cost a tenth of a pass (measured in random worlds)."""
    return get_type_hints(kind)


def _value(kind: Any, value: object, name: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):
        if value is None and NoneType in inner:
            return None
        return _value(next(one for one in inner if one is not NoneType), value, name)
    if origin is tuple:
        return _tuple(inner, value, name)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(kind, value, name)
        return {_value(inner[0], key, name): _value(inner[1], one, name) for key, one in value.items()}
    return _plain(kind, value, name)


def _tuple(inner: tuple[Any, ...], value: object, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _wrong(tuple, value, name)
    if inner[-1] is Ellipsis:
        inner = (inner[0],) * len(value)
    if len(inner) != len(value):
        raise _wrong(tuple, value, name)
    return tuple(_value(kind, one, name) for kind, one in zip(inner, value, strict=True))


def _plain(kind: Any, value: object, name: str) -> Any:
    if kind is object:
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        return typed(kind, value)
    if issubclass(kind, Enum):
        return kind(value)
    if kind in (int, float):
        return kind(_number(kind, value, name))
    if type(value) is not kind:
        raise _wrong(kind, value, name)
    return value


def _number(kind: type, value: object, name: str) -> int | float:
    """A whole number does for a fraction; true and false, NaN and the infinite do for none."""
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise _wrong(kind, value, name)
    if not -_MOST <= value <= _MOST:  # nor is NaN
        raise ValueError(f"{name} cannot be {value!r:.40}")
    return value


def _wrong(kind: Any, value: object, name: str = "it") -> ValueError:
    return ValueError(f"{name} should be {getattr(kind, '__name__', kind)}, not {value!r:.40}")
