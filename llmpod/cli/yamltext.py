"""Not a YAML library: adds a few lines to a person's YAML file and keeps every other byte of it, comments included.

Where the text is not of the plain form that such files have, it refuses; nothing is guessed.
"""

import json
import re
from collections.abc import Mapping, Sequence

from llmpod.errors import ConfigError

BEGIN, END = "# llmpod begin", "# llmpod end"
_PLAIN = re.compile(r"(\"[^\"\\]*\"|'[^']*'|[^\s\"'|>&*!{\[%@`#][^#]*?)\s*(#.*)?")


def with_keys(text: str, keys: Mapping[str, str], *, keep: Sequence[str] = ()) -> str:
    """A flat mapping with these keys set.

    Args:
        text: the file's text; may be empty.
        keys: the values to set.
        keep: keys that are left alone where they are set already.

    Raises:
        ConfigError: the file is of another form.
    """
    lines = _checked(text)
    for key, value in keys.items():
        found = [
            place for place, line in enumerate(lines) if re.match(rf"[\"']?{re.escape(key)}[\"']?\s*:", line)
        ]
        if not found:
            lines.append(f"{key}: {json.dumps(value)}")
            continue
        old = re.fullmatch(rf"{re.escape(key)}\s*:\s+(.*)", lines[found[0]])
        if len(found) > 1 or old is None or not _PLAIN.fullmatch(old[1]):
            raise ConfigError(f"line {found[0] + 1} sets `{key}` in a form that is not known here.")
        if key not in keep:
            lines[found[0]] = f"{key}: {json.dumps(value)}"
    return "\n".join(lines) + "\n"


def with_item(text: str, key: str, item: Sequence[str], *, head: Sequence[str]) -> str:
    """A mapping whose list ``key`` has this item, once, as its first.

    Args:
        text: the file's text; may be empty.
        key: of the list.
        item: the item's lines without indentation; the first begins with ``- ``.
        head: the lines that a new file begins with.

    Raises:
        ConfigError: the file is of another form.
    """
    lines = _without_ours(_checked(text)) or list(head)
    places = [place for place, line in enumerate(lines) if re.match(rf"[\"']?{key}[\"']?\s*:", line)]
    if not places:
        lines, places = [*lines, f"{key}:"], [len(lines)]
    place = places[0]
    if re.fullmatch(rf"{key}:\s*\[\s*\]\s*(#.*)?", lines[place]):
        lines[place] = f"{key}:"
    if len(places) > 1 or not re.fullmatch(rf"{key}:\s*(#.*)?", lines[place]):
        raise ConfigError(f"line {place + 1} gives `{key}` in a form that is not known here.")
    indent = _indent_below(lines, place)
    ours = [indent + line for line in (BEGIN, *item, END)]
    return "\n".join([*lines[: place + 1], *ours, *lines[place + 1 :]]) + "\n"


def _indent_below(lines: Sequence[str], place: int) -> str:
    """How the items of the list in that line are indented."""
    for number, line in enumerate(lines[place + 1 :], place + 2):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if item := re.match(r"( *)-(\s|$)", line):
            return item[1]
        if line.startswith(" "):
            raise ConfigError(f"line {number} is no item of a list.")
        break
    return "  "


def _without_ours(lines: list[str]) -> list[str]:
    marks = [line.strip() for line in lines]
    if BEGIN not in marks:
        return lines
    begin = marks.index(BEGIN)
    if END not in marks[begin:]:
        raise ConfigError(f"line {begin + 1} begins what llmpod wrote, but its end is missing.")
    return lines[:begin] + lines[marks.index(END, begin) + 1 :]


def _checked(text: str) -> list[str]:
    """The lines of one document in block form. Raises ConfigError for anything else."""
    lines = text.removeprefix("\ufeff").splitlines()
    body = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if any(line.startswith(("---", "...")) for line in body[1:]) or (body and body[0].startswith(("{", "["))):
        raise ConfigError("it is not one plain block of YAML.")
    if any(line[: len(line) - len(line.lstrip())].count("\t") for line in body):
        raise ConfigError("it is indented with tabs.")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
