"""Not the asking: the five things that ``init`` must know, how an answer is read, and what the file says of them."""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpod import config
from llmpod.backends.runpod_gpus import CARDS
from llmpod.config import AUTO_GPU
from llmpod.errors import ConfigError

NO_BUDGET = "none"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to know.

    Args:
        name: of the flag that answers it.
        text: asks for it.
        default: the answer in words.
        read: turns an answer into keys of ``pod_config.json``; raises ConfigError.
        comment: what the file says above its key.
        wrong: what an answer that the validation refuses is told, where its own words do not help.
    """

    name: str
    text: str
    default: str
    read: Callable[[str], Mapping[str, Any]]
    comment: str
    wrong: str = ""


def _model(text: str) -> Mapping[str, Any]:
    return {"model": text.strip()}


def _gpu(text: str) -> Mapping[str, Any]:
    """``auto``, or GPU types; a short name is enough where it means one type only."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if [word.lower() for word in words] == [AUTO_GPU]:
        return {"gpu_type_id": AUTO_GPU}
    if not words:
        raise ConfigError("name at least one GPU type, or `auto`.")
    return {"gpu_type_id": list(dict.fromkeys(map(_gpu_id, words)))}


def _gpu_id(word: str) -> str:
    """A type that the built-in list lacks passes when it is written out: RunPod adds new ones."""
    names = {name.lower(): name for name in CARDS}
    if found := names.get(word.lower()):
        return found
    meant = [name for low, name in names.items() if low.endswith(" " + word.lower())]
    if len(meant) == 1:
        return meant[0]
    if word.startswith(("NVIDIA ", "AMD ")) and not difflib.get_close_matches(word, CARDS, n=1, cutoff=0.9):
        return word
    near = meant or difflib.get_close_matches(word, CARDS, n=3, cutoff=0.3)
    raise ConfigError(
        f"{word!r} is no GPU type that RunPod is known to have; near: {', '.join(near) or '-'}."
    )


def _runtime(text: str) -> Mapping[str, Any]:
    """``3600``, ``90m``, ``1h30m``."""
    plain = text.replace(" ", "").lower()
    parts = re.findall(r"(\d+)([smhd])", plain)
    if plain.isdecimal():
        return {"runtime_seconds": int(plain[:12])}
    if not parts or "".join(number + unit for number, unit in parts) != plain:
        raise ConfigError(f"{text!r} is no length of time; write for example 90m, 2h or 1h30m.")
    return {"runtime_seconds": sum(int(number[:12]) * _UNITS[unit] for number, unit in parts)}


def _budget(text: str) -> Mapping[str, Any]:
    plain = text.strip().lower().removeprefix("$").removesuffix("usd").strip()
    if plain == NO_BUDGET:
        return {}
    if not re.fullmatch(r"\d{1,9}(\.\d{1,4})?", plain):
        raise ConfigError(f"{text!r} is no amount of US dollars; write for example 5 or 7.50, or `none`.")
    return {"budget": {"per_day_usd": float(plain)}}


def _port(text: str) -> Mapping[str, Any]:
    if not re.fullmatch(r"\d{1,9}", text.strip()):
        raise ConfigError(f"{text!r} is no port number.")
    return {"proxy_port": int(text)}


QUESTIONS = (
    Question(
        "model",
        "Which model? (Hugging Face id)",
        "Qwen/Qwen2.5-Coder-7B-Instruct",
        _model,
        "The model: a Hugging Face id, org/name or org/name@revision.",
        "that is no Hugging Face id; one looks like org/name or org/name@revision.",
    ),
    Question(
        "gpu",
        "On which GPU? (auto: the cheapest that fits; or types in order of preference, with commas)",
        AUTO_GPU,
        _gpu,
        '"auto" takes the cheapest GPU that fits the model; a list is tried in its order.',
    ),
    Question(
        "runtime",
        "How long may one run take? (90m, 2h, …)",
        "1h",
        _runtime,
        "One run ends after so many seconds, whatever happens.",
    ),
    Question(
        "budget",
        "How many US dollars a day at most? (or none)",
        "10",
        _budget,
        "What all runs of a day (UTC) may cost together; a run ends when it is spent.",
    ),
    Question(
        "port",
        "On which port shall your editor find it?",
        "8000",
        _port,
        "The address for your editor: http://localhost:{proxy_port}/v1",
    ),
)


def read(question: Question, answer: str, *, environ: Mapping[str, str]) -> Mapping[str, Any]:
    """An answer as keys that the real validation accepts.

    Raises:
        ConfigError: what is wrong with it.
    """
    keys = question.read(answer)
    try:
        config.parse({"model": "org/name", **keys}, path=Path("pod_config.json"), environ=environ)
    except ConfigError as e:
        raise ConfigError(question.wrong or e.message.partition("\n")[2].strip()) from None
    return keys


def document(answers: Mapping[str, Mapping[str, Any]], *, schema: str | None) -> str:
    """The text of ``pod_config.json``: each key with what it is for.

    Args:
        answers: keys by question name, as :func:`read` gave them.
        schema: where editors find the JSON Schema, or None.
    """
    blocks = [f'  "$schema": {json.dumps(schema)}  // editors complete and check the keys'] if schema else []
    for question in QUESTIONS:
        for key, value in answers[question.name].items():
            comment = question.comment.format_map({**answers[question.name]})
            blocks.append(f"  // {comment}\n  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    head = "// llmpod: see README.md for all keys. The RunPod key never stands here.\n"
    return head + "{\n" + _joined(blocks) + "\n}\n"


def _joined(blocks: list[str]) -> str:
    """With commas between them, which stand before a comment at the end of a line."""
    last = len(blocks) - 1
    return "\n\n".join(
        block if place == last else (block.replace("  //", ",  //", 1) if "$schema" in block else block + ",")
        for place, block in enumerate(blocks)
    )
