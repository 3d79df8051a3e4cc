"""The sentences of a model that knows nothing and is friendly about it. Not language: templates and dice."""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

_MEANS = (
    "chat_template_kwargs",
    "frequency_penalty",
    "input",
    "messages",
    "presence_penalty",
    "prompt",
    "reasoning_effort",
    "response_format",
    "seed",
    "suffix",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
)
_OPENINGS = (
    "Happy to help with “{about}”.",
    "Good question: {about}.",
    "Let us look at “{about}” together 🙂",
    "You asked about “{about}”. Here is what I can say.",
    "Thanks! On {about}, a short answer first.",
)
_SUBJECTS = (
    "A careful answer", "The idea", "A small model", "Every good plan", "The café on the corner", "A cached reply",
    "The next step", "A patient reader", "The simulator", "A quiet machine",
)  # fmt: skip
_VERBS = (
    "begins with", "depends on", "turns into", "is worth", "explains", "leaves room for", "makes use of",
    "grows out of", "points to", "keeps",
)  # fmt: skip
_OBJECTS = (
    "one clear thought", "a good example", "the right question", "a little practice", "simple words",
    "facts that can be checked", "a naïve first try", "an open mind", "less than you think", "time well spent ✓",
)  # fmt: skip
_NATURAL = (2, 5)  # sentences after the opening


def dice(*meaning: object) -> random.Random:
    """Dice that fall the same way for the same meaning, in every process."""
    text = json.dumps(meaning, sort_keys=True, default=str)
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))


def meaning(body: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the answer; how it is delivered (stream, n, max_tokens, stop, logprobs) does not."""
    return {name: body[name] for name in _MEANS if body.get(name) is not None}


def natural(rolls: random.Random, about: str) -> str:
    """An answer of natural length to a message."""
    echo = " ".join(about.split()[:8]).strip(" .?!:") or "nothing in particular"
    opening = rolls.choice(_OPENINGS).format(about=echo)
    return " ".join([opening, *(_sentence(rolls) for _ in range(rolls.randint(*_NATURAL)))])


def thoughts(rolls: random.Random, about: str) -> str:
    """What it says to itself before it answers."""
    echo = " ".join(about.split()[:5]).strip(" .?!:") or "nothing"
    return f"The user wrote “{echo}”. {_sentence(rolls)} So a friendly reply will do."


def endless(rolls: random.Random) -> Iterator[str]:
    """Sentences for those who ask for more than a natural answer."""
    while True:
        yield " " + _sentence(rolls)


def value(rolls: random.Random) -> str:
    """Two words, for a field that wants text."""
    return f"{rolls.choice(_SUBJECTS).split()[-1]} {rolls.choice(_OBJECTS).split()[-1]}"


def _sentence(rolls: random.Random) -> str:
    return f"{rolls.choice(_SUBJECTS)} {rolls.choice(_VERBS)} {rolls.choice(_OBJECTS)}."
