"""Not a JSON5 parser: standard JSON plus ``//`` comments, with errors that name line and column."""

import json
import re
from typing import Any

from llmpod.errors import ConfigError

# A string literal or a comment; strings come first so that "http://x" is never taken for a comment.
_TOKEN = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*')


def strip_comments(text: str) -> str:
    """Replace each ``//`` comment by spaces, so that positions in later errors stay true."""
    return _TOKEN.sub(lambda m: m[0] if m[0].startswith('"') else " " * len(m[0]), text)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, value in pairs:
        if name in seen:
            raise ConfigError(f"the key `{name}` stands twice.", hint="Keep one of them.", param=name)
        seen[name] = value
    return seen


def _no_constant(word: str) -> float:
    raise ConfigError(f"{word} is not a JSON number.")


def parse(text: str, *, where: str) -> dict[str, Any]:
    """Parse one JSON object with ``//`` comments.

    Args:
        text: the document.
        where: its name in error messages.

    Raises:
        ConfigError: with line and column of the first mistake.
    """
    try:
        value = json.loads(
            strip_comments(text), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except json.JSONDecodeError as e:
        hint = "Only // comments are allowed beyond JSON; a comma before } or ] is not."
        raise ConfigError(f"{where}: line {e.lineno}, column {e.colno}: {e.msg}.", hint=hint) from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply.") from None
    except ConfigError as e:
        raise ConfigError(f"{where}: {e.message}", hint=e.hint, param=e.param) from None
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected an object {{…}}, found {type(value).__name__}.")
    return value
