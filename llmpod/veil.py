"""Not encryption: takes live secrets, in every spelling in which they travel, out of text that others will read.

Both programs have one each: what they print, log, note or pass on as somebody else's error goes through it.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

from llmpod.secret import MASK, Secret

LEAST: Final = 6  # a shorter "secret" would mask ordinary words

# The shapes of RunPod's, Hugging Face's, our own and OpenAI-like keys, and of whatever follows "Bearer".
_SHAPES: Final = re.compile(
    r"\brpa_[A-Za-z0-9]{12,}|\bhf_[A-Za-z0-9]{12,}|\bsk-[A-Za-z0-9_-]{16,}|(?<=[Bb]earer )[^\s\"',]{8,}"
)
_WORD: Final = re.compile(
    r"(?P<public>(?:[A-Za-z]{1,8}[_-]){0,2})[A-Za-z0-9_+/=.~-]{16,}"
)  # a key; no URL, no phrase
_OWN: Final = (
    8  # characters of a key, after what all of its kind begin with, that no other text has by chance
)
_SIDE: Final = r"[A-Za-z0-9+/_-]{0,4}"  # of base64: what of the secret shares a character with its neighbours


class Veil:
    """What is known to be secret now. Thread-safe: learning replaces a value, it changes none."""

    def __init__(self, secrets: Iterable[Secret | str | None] = ()) -> None:
        self._known: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self.learn(*secrets)

    def __repr__(self) -> str:
        return f"Veil({len(self._known)} secrets)"

    @property
    def known(self) -> int:
        """How many secrets it knows; what was masked before one was learned may need to be masked again."""
        return len(self._known)

    def learn(self, *secrets: Secret | str | None) -> None:
        """From now on these are masked, too; empty and very short ones are ignored."""
        values = {s.reveal() if isinstance(s, Secret) else s for s in secrets if s is not None}
        known = self._known | {value for value in values if len(value) >= LEAST}
        if known != self._known:
            patterns = sorted({p for value in known for p in _patterns(value)}, key=len, reverse=True)
            self._pattern, self._known = re.compile("|".join(patterns)), known

    def live(self, text: str) -> str:
        """The text without the secrets that are known."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    def mask(self, text: str) -> str:
        """The text without them, and without what has the shape of a key."""
        return _SHAPES.sub(MASK, self.live(text))

    def live_bytes(self, data: bytes) -> bytes:
        """The same as ``live`` for bytes of any encoding that extends ASCII."""
        if self._pattern is None:
            return data
        return self._pattern.sub(MASK, data.decode("latin-1")).encode("latin-1")


def _patterns(value: str) -> Iterator[str]:
    """The spellings of a secret as regular expressions: itself (or its beginning), in a URL, in JSON,
    in hexadecimal, in base64.
    """
    data = value.encode()
    plain = {value, data.decode("latin-1"), quote(value), quote(value, safe=""), json.dumps(value)[1:-1]}
    for text in plain:
        yield _begun(text)
    yield f"(?i:{_begun(data.hex())})"
    for offset in range(3):  # inside a longer text, as in "user:secret", it may begin at any of three places
        inner = base64.b64encode(b"\0" * offset + data)[4 if offset else 0 :].rstrip(b"=")[:-2].decode()
        for text in {inner, inner.replace("+", "-").replace("/", "_")}:
            yield f"{_SIDE}{_begun(text)}{_SIDE}={{0,2}}"


def _begun(text: str) -> str:
    """It, and what is left of it where somebody cut the text that it stood in: the beginning of a key.

    Others' words are cut in many places before they are printed, logged or noted; all of that comes past the veil.
    """
    found = _WORD.fullmatch(text)
    own = len(found["public"]) + _OWN if found else len(text)
    if own >= len(text):
        return re.escape(text)
    return f"{re.escape(text[:own])}(?:{re.escape(text[own:])}|[A-Za-z0-9_-]*)"
