"""Not a check: what a check found, in words for the person who wrote the configuration."""

import difflib
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from llmpod.config.model_keys import ModelKeys
from llmpod.config.schema import PodConfig
from llmpod.config.section import Section
from llmpod.config.ways import SECTIONS
from llmpod.errors import ConfigError

_EXPECTED = {
    "model_type": "write an object with keys, {…}",
    "dict_type": "write an object with keys, {…}",
    "path_type": "write a path as a text",
}


def explained(error: ValidationError, path: Path, *, of: tuple[str, ...] = ()) -> ConfigError:
    """All mistakes at once, one a line: where, why, and what was probably meant."""
    lines: list[str] = []
    for item in error.errors(include_url=False, include_context=False):
        parts = [str(part) for part in item["loc"] if not str(part).startswith("function-")]
        said = _one_mistake(
            ".".join((*of, *parts)) if parts else "", item["type"], item["msg"], item["input"]
        )
        lines.append(said if parts or not of else f"{'.'.join(of)}: {said}")
    text = "\n  ".join(dict.fromkeys(lines))
    return ConfigError(f"{path} is not valid:\n  {text}", param=str(error.errors()[0]["loc"] or ""))


def _one_mistake(where: str, kind: str, message: str, value: object) -> str:
    if kind == "extra_forbidden":
        if common := _common_key(where):
            return f"{where}: `{common}` holds for all models: write it beside `models`, not inside one."
        near = _nearest(where)
        if where.lower() in ("runpod_api_key", "api_key"):
            return f"{where}: the key does not belong into this file; export RUNPOD_API_KEY or use a 0600 key file."
        return f"{where}: unknown key." + (f" Did you mean `{near[0]}`?" if near else "")
    if kind == "tuple_type" and isinstance(value, str) and not _is_secret(where):
        return f"{where}: write a list of words, not one text: {json.dumps(_words(value))}."
    message = _plain(kind, message.removeprefix("Value error, "))
    if not where:
        return f"{message}."
    shown = "***" if _is_secret(where) else json.dumps(value, default=str)[:60]
    return f"{where}: {message[0].lower()}{message[1:]} (found {shown}).{_meant(kind, message, value)}"


def _plain(kind: str, message: str) -> str:
    """What is expected, without the names of our classes."""
    return _EXPECTED.get(kind, message)


def _meant(kind: str, message: str, value: object) -> str:
    """The one of the allowed words that was probably meant, as a question; else nothing."""
    if kind not in ("literal_error", "enum") or not isinstance(value, str):
        return ""
    near = _like(value, re.findall(r"'([^']+)'", message))
    return f" Did you mean `{near[0]}`?" if near else ""


def _is_secret(where: str) -> bool:
    return "token" in where or where.startswith("notifications")


def _words(text: str) -> list[str]:
    """A command as a shell would split it; one with an odd quote as a person would."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _common_key(where: str) -> str:
    """The key of the whole installation that was written, or probably meant, inside one of ``models``; else empty."""
    head, _, rest = where.partition(".")
    key = rest.partition(".")[2]
    if head != "models" or not key or (key not in _own_names() and _like(key, ModelKeys.model_fields)):
        return ""
    return next(iter(_like(key, _own_names())), "")


def _nearest(where: str) -> list[str]:
    """The key that was probably meant; in a section of ``models``, one of its own."""
    head, _, rest = where.partition(".")
    if head != "models" or "." not in rest:
        return _like(where, _key_names())
    name, _, key = rest.partition(".")
    return [f"models.{name}.{k}" for k in _like(key, ModelKeys.model_fields)]


def _like(key: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(key, list(names), n=1, cutoff=0.5)


def _own_names() -> list[str]:
    return [field.alias or name for name, field in PodConfig.model_fields.items()]


def _key_names() -> list[str]:
    inner = {**SECTIONS, **dict(_sections())}
    return _own_names() + [
        f"{where}.{field.alias or name}"
        for where, section in inner.items()
        for name, field in section.model_fields.items()
    ]


def _sections() -> Iterator[tuple[str, type[Section]]]:
    """The keys of the whole document that hold one object of known keys."""
    for name, field in PodConfig.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Section):
                yield field.alias or name, kind
