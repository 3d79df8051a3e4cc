"""Not the gate: makes, shows, ends and replaces the keys with which people call the proxy.

A key is shown once, when it is made; what is kept is its SHA-256. The running proxy follows the file.
"""

import argparse
import json
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from llmpod.cli.command import Command, Invocation, json_flag
from llmpod.config import KEYS_FILE, Auth, CallerKey, Scope, digest_of, new_key, read_keys, written
from llmpod.errors import ConfigError, NotRouted
from llmpod.lifecycle import files
from llmpod.lifecycle.store import Store

LOCK_SECONDS: Final = 5.0
_UNITS: Final = {"h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_BOUNDS: Final = ("requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_day")


def run(call: Invocation) -> int:
    """``keys add|list|revoke|rotate``.

    Raises:
        ConfigError: the file of keys or the command is wrong.
        NotRouted: there is no such key.
    """
    options = call.options
    path: Path = options.file or Store(call.config(salvage=True).state_file).directory / KEYS_FILE
    if options.action == "list":
        return _list(call, read_keys(path))
    if not options.name:
        raise ConfigError(f"`keys {options.action}` needs a name.")
    with files.locked(path.with_name(f".{path.name}.lock"), wait_seconds=LOCK_SECONDS):
        keys = read_keys(path)
        secret, changed, said = _change(options, keys)
        files.write_atomic(path, written(changed))
    call.say(said)
    if secret:
        call.say(secret)  # to the person who made it, once
        call.say("This is shown once. Send it as `Authorization: Bearer …`.")
        if not options.file and call.config(salvage=True).common.auth is not Auth.KEYS:
            call.say(f'The proxy does not ask for keys yet: set "auth": "keys" in {call.config_path}.')
    return 0


def _change(options: argparse.Namespace, keys: Sequence[CallerKey]) -> tuple[str, list[CallerKey], str]:
    """The new key or nothing, all keys after it, and what was done."""
    if options.action == "add":
        return _add(options, keys)
    found = _find(keys, options.name)
    if options.action == "revoke":
        return "", [key for key in keys if key is not found], f"{found.name} ({found.id}) is revoked."
    secret, now, expires = new_key(), time.time(), options.expires or found.expires
    if expires is not None and expires <= now:
        raise ConfigError(
            f"{found.name} has expired, and so would its new key.", hint="Say until when: --expires 30d"
        )
    fresh = replace(found, digest=digest_of(secret), created=now, expires=expires)
    changed = [fresh if key is found else key for key in keys]
    return secret, changed, f"{found.name} ({found.id}) has a new key; the old one is void."


def _add(options: argparse.Namespace, keys: Sequence[CallerKey]) -> tuple[str, list[CallerKey], str]:
    if any(key.name == options.name for key in keys):
        raise ConfigError(f"There is a key {options.name} already.", hint="Revoke or rotate it.")
    secret = new_key()
    key = CallerKey(
        id=f"key_{secrets.token_hex(4)}",
        name=options.name,
        digest=digest_of(secret),
        scopes=tuple(dict.fromkeys(options.scope)) or (Scope.INFER,),
        models=tuple(options.model),
        created=time.time(),
        expires=options.expires,
        **{name: getattr(options, name) for name in _BOUNDS},
    )
    return secret, [*keys, key], f"{key.name} ({key.id}) may: {', '.join(key.scopes)}."


def _find(keys: Sequence[CallerKey], name: str) -> CallerKey:
    for key in keys:
        if name in (key.name, key.id):
            return key
    known = ", ".join(key.name for key in keys) or "none"
    raise NotRouted(f"There is no key {name}.", hint=f"There are: {known}.")


def _list(call: Invocation, keys: Sequence[CallerKey]) -> int:
    if call.options.json:
        call.say(json.dumps([_shown(key) for key in keys]))
        return 0
    if not keys:
        call.say("There are no keys. Make one: manage_pod.py keys add NAME")
    for key in keys:
        until = "for ever" if key.expires is None else f"until {_date(key.expires)}"
        bounds = [f"{name.replace('_', ' ')} {value}" for name in _BOUNDS if (value := getattr(key, name))]
        only = [f"only {', '.join(key.models)}"] if key.models else []
        call.say("  ".join([key.name, key.id, ",".join(key.scopes), until, *only, *bounds]))
    return 0


def _shown(key: CallerKey) -> dict[str, Any]:
    shown = {name: getattr(key, name) for name in ("id", "name", "scopes", "models", "created", "expires")}
    return shown | {name: getattr(key, name) for name in _BOUNDS}


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _expiry(text: str) -> float:
    """An argument type: ``12h``, ``30d``, ``4w`` from now."""
    found = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 12h, 30d or 4w")
    return time.time() + int(found[1]) * _UNITS[found[2]]


def _positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10**12:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("add", "list", "revoke", "rotate"))
    parser.add_argument("name", nargs="?", default="", help="of the key; its id serves too, but for add")
    parser.add_argument(
        "--scope", action="append", type=Scope, choices=tuple(Scope), default=[], help="default: infer"
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="only this model; repeatable"
    )
    parser.add_argument(
        "--expires", type=_expiry, metavar="30d", help="from now, in h, d or w; default: never"
    )
    for name in _BOUNDS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=_positive, metavar="N")
    parser.add_argument(
        "--file", type=Path, metavar="FILE", help="of a proxy that runs alone (LLMPOD_KEYS_FILE)"
    )
    json_flag(parser)


COMMAND = Command("keys", "who may call the proxy: add, list, revoke or rotate a key", run, _arguments)
