"""Not a client: takes a batch of embeddings apart, one answer for each input, and puts answers together again. Pure.

What one input is answered with is kept as the answer to a batch of that input alone, so whoever asks for it alone is
served with it, too. Numbers are never read and written again: the text of each vector goes through untouched.

How many tokens each input took is known only for one that was asked for alone. Those of inputs that were fetched
together are shared out among them by length, so that the sum over all that were fetched together is exact.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

from llmpod.cache.jsontext import NotJSON, canonical, read

EMBEDDINGS: Final = "/v1/embeddings"
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_DECODER: Final = json.JSONDecoder()
Member = tuple[str, str]  # a name and the text of its value


class Batch(NamedTuple):
    """A question about several inputs."""

    question: dict[str, Any]
    inputs: list[Any]

    def only(self, inputs: Sequence[Any]) -> bytes:
        """The same question about some of them, as a body."""
        return canonical({**self.question, "input": list(inputs)})


def batch_of(body: bytes) -> Batch | None:
    """The batch in a body: two or more texts or lists of tokens. None for anything else."""
    try:
        question = read(body)
    except NotJSON:
        return None
    inputs = question.get("input") if isinstance(question, dict) else None
    if not isinstance(inputs, list) or len(inputs) < 2:
        return None
    texts = all(isinstance(item, str) for item in inputs)
    return Batch(question, inputs) if texts or all(map(_is_tokens, inputs)) else None


def _is_tokens(item: object) -> bool:
    return isinstance(item, list) and all(isinstance(token, int) for token in item)


def taken_apart(answer: bytes, inputs: Sequence[Any]) -> list[bytes] | None:
    """The answer to each input, in their order; None where the answer does not say which is which."""
    try:
        text = answer.decode()
        members = _members(text)
        vectors = [_members(element) for element in _elements(dict(members)["data"])]
        places = [int(dict(vector)["index"]) for vector in vectors]
        usage = json.loads(dict(members).get("usage", "null"))
    except (ValueError, KeyError, IndexError, RecursionError):
        return None
    if sorted(places) != list(range(len(inputs))):
        return None
    by_place = dict(zip(places, vectors, strict=True))
    shares = _shares(usage, inputs)
    return [_document(members, [by_place[place]], shares[place]) for place in range(len(inputs))]


def put_together(answers: Sequence[bytes], *, like: bytes) -> bytes:
    """The answer to a batch out of the answers to its inputs.

    Args:
        answers: as ``taken_apart`` made them, in the order of the inputs.
        like: the one whose other members (``model``, ``id``, …) are taken.
    """
    parts = [dict(_members(answer.decode())) for answer in answers]
    vectors = [_members(element) for part in parts for element in _elements(part["data"])]
    usage = _sum([json.loads(part.get("usage", "null")) for part in parts])
    return _document(_members(like.decode()), vectors, usage)


def _document(members: list[Member], vectors: list[list[Member]], usage: Any) -> bytes:
    data = ",".join(_renumbered(vector, place) for place, vector in enumerate(vectors))
    new = {"data": f"[{data}]", "usage": json.dumps(usage)}
    return _object((name, new.get(name, raw)) for name, raw in members).encode()


def _renumbered(vector: list[Member], place: int) -> str:
    return _object((name, str(place) if name == "index" else raw) for name, raw in vector)


def _object(members: Iterator[Member]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{raw}" for name, raw in members) + "}"


# --- tokens --------------------------------------------------------------------------------------------------
def _shares(usage: Any, inputs: Sequence[Any]) -> list[Any]:
    """What each input took, by its length; the shares add up to the whole."""
    if not isinstance(usage, dict):
        return [usage] * len(inputs)
    ends = [0, *accumulate(max(1, len(item)) for item in inputs)]
    return [
        {
            name: value * end // ends[-1] - value * start // ends[-1] if _counts(value) else value
            for name, value in usage.items()
        }
        for start, end in pairwise(ends)
    ]


def _sum(usages: list[Any]) -> Any:
    if not all(isinstance(usage, dict) for usage in usages):
        return None
    return {
        name: sum(filter(_counts, (usage.get(name) for usage in usages))) if _counts(value) else value
        for name, value in usages[0].items()
    }


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# --- text of members -------------------------------------------------------------------------------------------
def _members(text: str) -> list[Member]:
    """The members of an object, each value as it is written. Raises ValueError, IndexError."""
    found: list[Member] = []
    place = _after(text, 0, "{")
    while text[place] != "}":
        name, place = _DECODER.raw_decode(text, place)
        start = _after(text, place, ":")
        _, end = _DECODER.raw_decode(text, start)
        found.append((str(name), text[start:end]))
        place = _next(text, end, "}")
    return found


def _elements(text: str) -> list[str]:
    """The same for an array."""
    found: list[str] = []
    place = _after(text, 0, "[")
    while text[place] != "]":
        _, end = _DECODER.raw_decode(text, place)
        found.append(text[place:end])
        place = _next(text, end, "]")
    return found


def _next(text: str, place: int, last: str) -> int:
    """Behind a comma, or at the end."""
    place = _skip(text, place)
    return place if text[place] == last else _after(text, place, ",")


def _after(text: str, place: int, mark: str) -> int:
    place = _skip(text, place)
    if text[place] != mark:
        raise ValueError(f"{mark} is missing at {place}")
    return _skip(text, place + 1)


def _skip(text: str, place: int) -> int:
    space = _SPACE.match(text, place)
    return space.end() if space is not None else place
