"""Not the network: what the hub's documents say of a model's size. Pure; whatever stands in them, it is an answer or
one of the two errors here.
"""

import json
from collections.abc import Mapping
from typing import Any

from llmpod.errors import BadSpec, ProviderUnavailable

_MOST_BYTES = 2**60  # no model is as large; a number above it is none, and would not even fit a float


class Unmeasured(BadSpec):
    """The model is there, but not in a form from which its size can be told."""


def tensors(header: Mapping[str, Any]) -> tuple[int, int]:
    """Bytes of all tensors of a file, and of those in 32-bit floats, by their places in it.

    Raises:
        ProviderUnavailable: it is no header of safetensors.
        Unmeasured: it has no tensors.
    """
    total = floats = 0
    for tensor in (entry for name, entry in header.items() if name != "__metadata__"):
        size = _size(tensor)
        total += size
        floats += size if tensor.get("dtype") == "F32" else 0
    if not total:
        raise Unmeasured("Its safetensors file holds no tensors.", hint="Choose another repository.")
    return total, floats


def _size(tensor: object) -> int:
    offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
    if isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int for n in offsets):
        begin, end = offsets
        if 0 <= begin <= end <= _MOST_BYTES:
            return int(end - begin)
    raise ProviderUnavailable("A safetensors header is malformed.")


def document(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises ProviderUnavailable: it is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ProviderUnavailable(f"The hub's answer is not a JSON object: {body[:60]!r}")
    return value


def count(value: object) -> int:
    """A number of bytes or parameters; 0 for what is none."""
    return value if type(value) is int and 0 < value <= _MOST_BYTES else 0
