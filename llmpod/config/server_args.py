"""Not a model server's parser: finds single options among the words that a user gave it. Pure."""

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


def values(args: Sequence[str], name: str) -> tuple[str, ...]:
    """All that follows an option, up to the next one; every time that it is given."""
    found: list[str] = []
    taking = False
    for word in args:
        if word.startswith("-"):
            this, equals, value = word.partition("=")
            taking = this == name and not equals
            found += [value] if this == name and equals else []
        elif taking:
            found.append(word)
    return tuple(found)


def served(args: Sequence[str]) -> str | None:
    """The word after ``serve``; None: there is none, or it is an option."""
    words = [*args, "-"]
    following = words[words.index("serve") + 1] if "serve" in args else "-"
    return None if following.startswith("-") else following


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
