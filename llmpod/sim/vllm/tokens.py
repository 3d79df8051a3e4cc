"""Text to tokens and back. Not a trained vocabulary: a token is up to four UTF-8 bytes of one word.

A token may end inside a character, as those of real models do; its number holds its bytes, so that numbers can
be turned back into text without a table.
"""

import re
from collections.abc import Iterable

_WORD = re.compile(r"\s?\w+|\s?[^\w\s]+|\s+")
_SIZE = 4


def pieces(text: str) -> list[bytes]:
    """The tokens of a text, as bytes. A lone surrogate becomes a question mark."""
    words = (match.group().encode("utf-8", "replace") for match in _WORD.finditer(text))
    return [word[start : start + _SIZE] for word in words for start in range(0, len(word), _SIZE)]


def count(text: str) -> int:
    """How many tokens a text has."""
    return len(pieces(text))


def number(piece: bytes) -> int:
    """The number of a token: its bytes behind a leading one, which keeps zeros."""
    return int.from_bytes(b"\x01" + piece)


def text_of(numbers: Iterable[int]) -> str:
    """The text of token numbers. Raises ValueError for a number that no token has."""
    return b"".join(map(_piece, numbers)).decode("utf-8", "replace")


def readable(piece: bytes) -> str:
    """A token as text; the bytes of a divided character show as replacement characters."""
    return piece.decode("utf-8", "replace")


def _piece(token: int) -> bytes:
    if not 0 < token < 1 << 8 * (_SIZE + 1):
        raise ValueError(f"Token id {token} is out of vocabulary")
    data = token.to_bytes(_SIZE + 1).lstrip(b"\0")
    if data[:1] != b"\x01":
        raise ValueError(f"Token id {token} is out of vocabulary")
    return data[1:]
