"""Not a sanitiser of HTML or logs: what others wrote, as one line that a terminal shows and does not obey.

Names of pods, a provider's words and a model server's bytes are anybody's. Where they come in, they go through here.
And how a process ended, in words.
"""

import re
from contextlib import suppress
from signal import Signals

# Control sequences and control strings with all that belongs to them (ECMA-48, 5.4 and 5.6), in 7 and in 8 bits.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90-\x9f]*(?:\x07|\x1b\\|\x9c)"
)


def one_line(text: str, most: int | None = None) -> str:
    """The text without anything that is not printable: escapes, controls, marks of direction, lone surrogates.

    Args:
        text: anybody's.
        most: characters; a longer text is cut, which shows.
    """
    if not text.isprintable():
        text = "".join(map(_shown, _SEQUENCE.sub("", text)))
    return text if most is None or len(text) <= most else f"{text[: most - 1]}…"


def _shown(character: str) -> str:
    if character.isprintable() or character == "\t":
        return character
    return " " if character.isspace() else ""


def ending(code: object) -> str:
    """How a process ended, for people; negative codes are signals."""
    if isinstance(code, int) and code < 0:
        with suppress(ValueError):
            return f"it was ended by {Signals(-code).name}"
    return f"it ended with exit code {code}"


def duration(seconds: float) -> str:
    """``75`` → ``1 m 15 s``."""
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} m"
    return f"{minutes} m {rest:02d} s" if minutes else f"{rest} s"
