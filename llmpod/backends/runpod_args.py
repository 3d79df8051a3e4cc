"""Not vLLM's parser: finds single options among the arguments that a user gave for ``vllm serve``."""

import re
from collections.abc import Sequence

_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


def option(args: Sequence[str], *names: str) -> str | None:
    """The value of an option, the last one given, as ``--name value`` or ``--name=value``; ``_`` counts as ``-``."""
    found = None
    for place, word in enumerate(args):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") not in names:
            continue
        if equals:
            found = value
        elif place + 1 < len(args):
            found = args[place + 1]
    return found


def whole_number(text: str | None) -> int | None:
    """``8192``, ``8k`` (8000) or ``8K`` (8192), as vLLM reads it; None for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgKMG]?)", text or "")
    return int(float(match[1]) * _UNITS.get(match[2], 1)) if match else None


def share(text: str | None) -> float | None:
    """A number between 0 and 1; None for anything else."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 < value <= 1 else None
