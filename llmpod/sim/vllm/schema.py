"""A value for a JSON schema. Not a validator, and not every keyword: what tool and answer schemas commonly use."""

import json
import math
import random
from collections.abc import Mapping
from typing import Any

from llmpod.sim.vllm import words

_DEEP = 4  # from here on only what is required, so that a schema that contains itself comes to an end
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "3f2b8c1e-5d7a-4b6e-9c0f-1a2b3c4d5e6f",
    "ipv4": "192.0.2.1",
}
Schema = Mapping[str, Any]


def instance(schema: object, rolls: random.Random, *, root: Schema | None = None, depth: int = 0) -> Any:
    """A value that satisfies a schema, the same for the same dice; `{}` for what is no schema."""
    if not isinstance(schema, Mapping):
        return {}
    root = schema if root is None else root
    flat = _flat(schema, root, rolls)
    if "const" in flat:
        return flat["const"]
    if isinstance(flat.get("enum"), list) and flat["enum"]:
        return rolls.choice(flat["enum"])
    match _type(flat, rolls):
        case "object":
            return _object(flat, rolls, root=root, depth=depth)
        case "array":
            return _array(flat, rolls, root=root, depth=depth)
        case "integer" | "number" as kind:
            return _number(flat, rolls, whole=kind == "integer")
        case "boolean":
            return rolls.random() < 0.5
        case "null":
            return None
        case _:
            return _string(flat, rolls)


def as_json(schema: object, rolls: random.Random) -> str:
    """The same as JSON text."""
    return json.dumps(instance(schema, rolls), ensure_ascii=False)


def _flat(schema: Schema, root: Schema, rolls: random.Random, *, hops: int = 0) -> dict[str, Any]:
    """The schema without $ref, allOf, anyOf and oneOf: references followed, parts merged, a branch chosen."""
    flat = dict(schema)
    parts = [_target(root, flat.pop("$ref"))] if isinstance(flat.get("$ref"), str) else []
    parts += flat.pop("allOf", ())
    for choice in ("anyOf", "oneOf"):
        if branches := flat.pop(choice, ()):
            parts.append(branches[0] if hops else rolls.choice(branches))
    for part in parts:
        if hops < 8 and isinstance(part, Mapping):
            flat = _merged(flat, _flat(part, root, rolls, hops=hops + 1))
    return flat


def _merged(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    both = {**right, **left}
    if "properties" in left and "properties" in right:
        both["properties"] = {**right["properties"], **left["properties"]}
    if "required" in left and "required" in right:
        both["required"] = list(dict.fromkeys([*right["required"], *left["required"]]))
    return both


def _target(root: Schema, reference: str) -> Any:
    found: Any = root
    for name in reference.removeprefix("#").strip("/").split("/"):
        if name:
            found = (
                found.get(name.replace("~1", "/").replace("~0", "~"), {})
                if isinstance(found, Mapping)
                else {}
            )
    return found


def _type(schema: Schema, rolls: random.Random) -> str:
    kind = schema.get("type")
    if isinstance(kind, list) and kind:
        return str(rolls.choice(kind))
    if isinstance(kind, str):
        return kind
    if "properties" in schema or not schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _object(schema: Schema, rolls: random.Random, *, root: Schema, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    required = schema.get("required") or []
    names = list(dict.fromkeys([*(properties if depth < _DEEP else ()), *required]))
    return {
        name: instance(properties.get(name, {"type": "string"}), rolls, root=root, depth=depth + 1)
        for name in names
    }


def _array(schema: Schema, rolls: random.Random, *, root: Schema, depth: int) -> list[Any]:
    first = schema.get("prefixItems") or []
    least = max(int(schema.get("minItems", 0)), len(first))
    most = int(schema.get("maxItems", least + 2))
    size = least if depth >= _DEEP else rolls.randint(least, max(least, min(most, least + 2)))
    rest = schema.get("items", {"type": "string"})
    kinds = [*first, *[rest] * max(0, size - len(first))]
    return [instance(kind, rolls, root=root, depth=depth + 1) for kind in kinds]


def _number(schema: Schema, rolls: random.Random, *, whole: bool) -> int | float:
    step = schema.get("multipleOf") or (1 if whole else 0.5)
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and isinstance(above := schema.get("exclusiveMinimum"), int | float):
        low = above + step
    if high is None and isinstance(below := schema.get("exclusiveMaximum"), int | float):
        high = below - step
    low = (0 if high is None else high - 20 * step) if low is None else low
    high = low + 20 * step if high is None else high
    first, last = math.ceil(low / step), math.floor(high / step)
    chosen = rolls.randint(first, last) * step if first <= last else low
    return int(chosen) if whole else float(chosen)


def _string(schema: Schema, rolls: random.Random) -> str:
    text = _FORMATS.get(str(schema.get("format"))) or words.value(rolls)
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
    text = text if len(text) >= least else text.ljust(least, "x")
    return text[: int(most)] if most is not None else text
