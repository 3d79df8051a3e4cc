"""Embeddings, and the scores that follow from them. Not learned: texts that share words are near each other."""

import base64
import math
import re
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmpod.sim.vllm import checks, tokens, words
from llmpod.sim.vllm.chat import Fields, full_usage, new_id
from llmpod.sim.vllm.http import Refusal
from llmpod.sim.vllm.options import VllmOptions

_WORD = re.compile(r"\w+")


def embedded(body: Mapping[str, Any], options: VllmOptions) -> Fields:
    """A list of embeddings, as numbers or as base64 of little-endian float32. Raises Refusal (400, 404)."""
    checks.known_model(body, options)
    texts = _texts(body["input"], "input")
    count = _fitting(texts, options)
    size = body.get("dimensions") or options.embedding_size
    if not 0 < size <= options.embedding_size:
        message = f"dimensions must be between 1 and {options.embedding_size}, got {size}."
        raise Refusal(400, message, param="dimensions")
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise Refusal(
            400, f"encoding_format must be float or base64, got {encoding}.", param="encoding_format"
        )
    vectors = (_packed(_vector(text, size)) for text in texts)
    data = [
        {"index": index, "object": "embedding", "embedding": _encoded(vector, encoding)}
        for index, vector in enumerate(vectors)
    ]
    return {**_head("embd-", options), "data": data, "usage": full_usage(count, 0)}


def scored(body: Mapping[str, Any], options: VllmOptions) -> Fields:
    """How near one text, or each of several, is to others: /v1/score. Raises Refusal (400, 404)."""
    checks.known_model(body, options)
    left, right = _texts(body["text_1"], "text_1"), _texts(body["text_2"], "text_2")
    if len(left) not in (1, len(right)):
        raise Refusal(400, "Input lengths must be either 1:1, 1:N or N:N")
    count = _fitting([*left, *right], options)
    pairs = zip(left * len(right) if len(left) == 1 else left, right, strict=True)
    data = [
        {"index": index, "object": "score", "score": _nearness(*pair)} for index, pair in enumerate(pairs)
    ]
    return {**_head("score-", options), "data": data, "usage": full_usage(count, 0)}


def reranked(body: Mapping[str, Any], options: VllmOptions) -> Fields:
    """Documents in the order of their nearness to a query: /v1/rerank. Raises Refusal (400, 404)."""
    checks.known_model(body, options)
    (query,), documents = _texts(str(body["query"]), "query"), _texts(body["documents"], "documents")
    count = _fitting([query, *documents], options)
    results = [
        {
            "index": index,
            "document": {"text": text, "multi_modal": None},
            "relevance_score": _nearness(query, text),
        }
        for index, text in enumerate(documents)
    ]
    results.sort(key=lambda result: -float(str(result["relevance_score"])))
    usage = {"prompt_tokens": count, "total_tokens": count}
    kept = results[: body.get("top_n") or len(results)]
    return {"id": new_id("rerank-"), "model": options.name, "usage": usage, "results": kept}


def _head(prefix: str, options: VllmOptions) -> Fields:
    return {"id": new_id(prefix), "object": "list", "created": int(time.time()), "model": options.name}


def _texts(value: object, name: str) -> list[str]:
    """A text, texts, token numbers or lists of them, as texts."""
    many = isinstance(value, list) and not all(isinstance(one, int) for one in value)
    found = [_text(one, name) for one in (value if isinstance(value, list) and many else [value])]
    if value == []:
        raise Refusal(400, f"{name} must not be empty", param=name)
    return found


def _text(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    try:
        if isinstance(value, list) and all(isinstance(one, int) for one in value):
            return tokens.text_of(value)
    except ValueError as error:
        raise Refusal(400, str(error), param=name) from None
    raise Refusal(400, f"{name} must be text, token numbers, or a list of them", param=name)


def _fitting(texts: Sequence[str], options: VllmOptions) -> int:
    """The tokens of all texts. Raises Refusal (400) when one of them is too long."""
    counts = [tokens.count(text) for text in texts]
    for count in counts:
        checks.fitting(count, 0, options)
    return sum(counts)


def _vector(text: str, size: int) -> list[float]:
    """The sum of the vectors of its words, of length one."""
    total = [0.0] * size
    for word in _WORD.findall(text.lower()) or [text]:
        rolls = words.dice("vector", word)
        total = [old + rolls.gauss(0, 1) for old in total]
    length = math.sqrt(sum(number * number for number in total))
    return [number / length for number in total]


def _nearness(left: str, right: str) -> float:
    """0 to 1, the more the nearer."""
    pairs: Iterator[tuple[float, float]] = zip(_vector(left, 64), _vector(right, 64), strict=True)
    return round((1 + sum(one * other for one, other in pairs)) / 2, 6)


def _packed(vector: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(vector)}f", *vector)


def _encoded(vector: bytes, encoding: str) -> str | list[float]:
    """Both forms hold the same 32-bit numbers."""
    return (
        base64.b64encode(vector).decode()
        if encoding == "base64"
        else list(struct.unpack(f"<{len(vector) // 4}f", vector))
    )
