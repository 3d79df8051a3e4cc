"""Not the configuration: ``init`` asks five questions and writes a valid, commented ``pod_config.json``."""

import argparse
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmpod import config
from llmpod.cli.command import Command, Invocation
from llmpod.cli.questions import QUESTIONS, Question, document, read
from llmpod.cli.wiring import DEFAULT_CONFIG
from llmpod.config import jsonc
from llmpod.errors import ConfigError, Declined
from llmpod.lifecycle import files

SCHEMA = "pod_config.schema.json"


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="take the default for what no flag answers")
    parser.add_argument(
        "--force", action="store_true", help="replace an existing file; it is kept as FILE.bak"
    )
    for question in QUESTIONS:
        words = f"{question.text} default: {question.default}".replace("%", "%%")
        parser.add_argument(f"--{question.name}", metavar=question.name.upper(), help=words)


def init(call: Invocation) -> int:
    """Ask what no flag answers, then write the file."""
    path = call.config_path.expanduser().resolve()
    flags = {q.name: getattr(call.options, q.name) for q in QUESTIONS}
    answers: dict[str, Mapping[str, Any]] = {}
    with _kept(answers):
        for question in QUESTIONS:  # a wrong flag is told before the first question
            if flags[question.name] is not None:
                answers[question.name] = _flag(question, flags[question.name], call.environ)
        _may_replace(call, path)
        for question in QUESTIONS:
            if question.name not in answers:
                answers[question.name] = _answer(call, question)
    _write(path, answers, call.environ)
    _tell(call, path)
    return 0


def _flag(question: Question, text: str, environ: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        return read(question, text, environ=environ)
    except ConfigError as e:
        raise ConfigError(f"--{question.name}: {e}") from None


def _answer(call: Invocation, question: Question) -> Mapping[str, Any]:
    """Until it is a good one; an empty line is the default."""
    if call.options.yes:
        return read(question, question.default, environ=call.environ)
    while True:
        text = input(f"{question.text} [{question.default}] ").strip()
        try:
            return read(question, text or question.default, environ=call.environ)
        except ConfigError as e:
            call.say(f"  {e}")


def _may_replace(call: Invocation, path: Path) -> None:
    """Raises Declined."""
    if not path.exists() or call.options.force:
        return
    refusal = Declined(f"{path} exists.", hint="--force replaces it and keeps the old one as .bak.")
    if call.options.yes:
        raise refusal
    if input(f"{path} exists. Replace it? The old one is kept as {path.name}.bak (y/N) ").lower() not in (
        "y",
        "yes",
    ):
        raise refusal


@contextmanager
def _kept(answers: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Who leaves in the middle, or whose answers end too early, is told how to go on from there."""
    try:
        yield
    except (EOFError, KeyboardInterrupt):
        given = [f"--{name} {shlex.quote(_word(keys))}" for name, keys in answers.items()]
        hint = f"Go on with: init {' '.join(given)}" if given else "`init --yes` takes the defaults."
        print()  # the cursor still stands behind a question
        raise Declined("Not all questions were answered; nothing was written.", hint=hint) from None


def _word(keys: Mapping[str, Any]) -> str:
    """An answer as the flag would take it."""
    value = next(iter(keys.values()), "none")
    if isinstance(value, dict):
        value = next(iter(value.values()))
    return ",".join(value) if isinstance(value, list) else str(value)


def _write(path: Path, answers: Mapping[str, Mapping[str, Any]], environ: Mapping[str, str]) -> None:
    """Checked as it stands, then in one step; 0600, since a token or a webhook may be added to it later."""
    text = document(answers, schema=f"./{SCHEMA}" if (path.parent / SCHEMA).exists() else None)
    config.parse(jsonc.parse(text, where=str(path)), path=path, environ=environ)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            files.write_atomic(path.with_name(path.name + ".bak"), path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"Cannot keep the old {path}: {e}.", hint="Nothing was changed.") from None
    files.write_atomic(path, text)


def _tell(call: Invocation, path: Path) -> None:
    """The two next commands."""
    where = "" if path == DEFAULT_CONFIG.resolve() else f" --config {shlex.quote(str(path))}"
    call.say(f"Wrote {path}. Next:")
    call.say(f"  python3 manage_pod.py{where} plan   # what it would start, with prices; changes nothing")
    call.say(f"  python3 manage_pod.py{where} up     # start it")
    if not config.has_runpod_key(call.environ):
        call.say(
            f"Both need a RunPod key: export RUNPOD_API_KEY or put it into {config.key_file(call.environ)}."
        )


COMMAND = Command("init", "five questions, then a valid pod_config.json", init, _arguments)
