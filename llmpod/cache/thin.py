"""Not a parser: leaves out of a stream what cannot change the verdict, so that little of it must be parsed.

Nearly all frames of a stream are like an earlier one in every byte but one piece of text. Such a frame is known to be
valid JSON with the same members: its prefix, up to the opening quote of that text, and its suffix, from the closing
quote on, are those of a frame that is kept and parsed, and what stands between is a JSON string.
"""

import re
from typing import Final

_NAMES: Final = "content|text|reasoning_content|reasoning|arguments"
# In valid JSON, '":"' behind a member's name can only be that name's closing quote, a colon and the opening quote of
# its value: inside a string both quotes would be escaped.
_PIECE: Final = re.compile(rf'"(?:{_NAMES})": ?"')
_STRING: Final = re.compile(r'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*')
_USAGE: Final = re.compile(r'"usage": ?\{')  # the last one counts, so its place matters
_LIKENESSES: Final = 4  # a stream of several choices has one for each
_TRIES: Final = 16


def thinned(text: str) -> str:
    """The same events without those that are like one before them; LF line ends only."""
    likenesses: list[tuple[str, str]] = []
    kept: list[str] = []
    start, tries = 0, 0
    while start < len(text):
        end = _like(text, start, likenesses)
        if end is None:
            end = text.find("\n\n", start) + 2
            if end == 1:  # no blank line follows
                end = len(text)
            frame = text[start:end]
            kept.append(frame)
            if tries < _TRIES and len(likenesses) < _LIKENESSES:
                tries += 1
                likenesses += _likeness(frame)
        start = end
    return "".join(kept)


def _like(text: str, start: int, likenesses: list[tuple[str, str]]) -> int | None:
    """Where the frame ends that begins here, if it is like one of them."""
    for prefix, suffix in likenesses:
        if text.startswith(prefix, start):
            piece = _STRING.match(text, start + len(prefix))
            if piece is not None and text.startswith(suffix, piece.end()):
                return piece.end() + len(suffix)
    return None


def _likeness(frame: str) -> list[tuple[str, str]]:
    """Prefix and suffix of those like this frame; nothing when it is no plain frame with a piece of text."""
    found = _PIECE.search(frame)
    if found is None or not frame.startswith("data: ") or not frame.endswith("}\n\n"):
        return []
    if "\n" in frame[:-2] or _USAGE.search(frame):
        return []
    piece = _STRING.match(frame, found.end())
    assert piece is not None  # it matches the empty string too
    return [(frame[: found.end()], frame[piece.end() :])]
