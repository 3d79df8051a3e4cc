"""Not encryption: masks what looks like a secret in text that people will read or that leaves this machine."""

import re
from collections.abc import Iterable

MASK = "***"
_LEAST = 6  # a shorter "secret" would mask ordinary words

# The shapes of RunPod's, Hugging Face's, our own and OpenAI-like keys, and of whatever follows "Bearer".
_SHAPES = re.compile(
    r"\brpa_[A-Za-z0-9]{12,}|\bhf_[A-Za-z0-9]{12,}|\bsk-[A-Za-z0-9_-]{16,}|(?<=[Bb]earer )[^\s\"',]{8,}"
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without secrets.

    Args:
        text: what is to be shown.
        secrets: values known to be secret; very short ones are ignored.
    """
    for secret in sorted((s for s in secrets if len(s) >= _LEAST), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _SHAPES.sub(MASK, text)
