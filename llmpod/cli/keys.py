"""Not the gate: makes, shows, limits, ends and replaces the keys with which people call the proxy.

A key is shown once, when it is made; what is kept is its SHA-256. The running proxy follows the file.
"""

import argparse
import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from llmpod.cli.command import Command, Invocation, json_flag
from llmpod.config import KEYS_FILE, Auth, CallerKey, Scope, digest_of, new_key, read_keys, written
from llmpod.errors import ConfigError, NotRouted, StateError
from llmpod.lifecycle import files
from llmpod.lifecycle.money import dollars
from llmpod.lifecycle.store import Store
from llmpod.lifecycle.tally import Tally, Used, day_name, read_tally, tally_file

LOCK_SECONDS: Final = 5.0
_UNITS: Final = {"h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_COUNTS: Final = ("requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_day")
_BUDGETS: Final = ("usd_per_day", "usd_per_month")
_BOUNDS: Final = (*_COUNTS, *_BUDGETS)
_NO_BOUND: Final = -1


def run(call: Invocation) -> int:
    """``keys add|limit|list|revoke|rotate``.

    Raises:
        ConfigError: the file of keys or the command is wrong.
        NotRouted: there is no such key.
    """
    options = call.options
    path: Path = options.file or Store(call.config(salvage=True).state_file).directory / KEYS_FILE
    if options.action == "list":
        return _list(call, read_keys(path), _used(call, path))
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
    if options.action == "limit":
        limited = replace(found, **_bounds(options))
        return (
            "",
            [limited if key is found else key for key in keys],
            f"{limited.name} ({limited.id}) may: {_limits(limited)}.",
        )
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
        scopes=tuple(dict.fromkeys(map(Scope, options.scope))) or (Scope.INFER,),
        models=tuple(options.model),
        created=time.time(),
        expires=options.expires,
        **_bounds(options),
    )
    return secret, [*keys, key], f"{key.name} ({key.id}) may: {', '.join(key.scopes)}."


def _bounds(options: argparse.Namespace) -> dict[str, Any]:
    """The bounds that were given; None for one that is to be no more."""
    given = {name: value for name in _BOUNDS if (value := getattr(options, name)) is not None}
    return {name: None if value == _NO_BOUND else value for name, value in given.items()}


def _limits(key: CallerKey) -> str:
    said = [f"{name.replace('_', ' ')} {value}" for name in _COUNTS if (value := getattr(key, name))]
    said += [
        f"{dollars(value)} {name.partition('_')[2].replace('_', ' ')}"
        for name in _BUDGETS
        if (value := getattr(key, name)) is not None
    ]
    return ", ".join(said) or "what all may"


def _find(keys: Sequence[CallerKey], name: str) -> CallerKey:
    for key in keys:
        if name in (key.name, key.id):
            return key
    known = ", ".join(key.name for key in keys) or "none"
    raise NotRouted(f"There is no key {name}.", hint=f"There are: {known}.")


def _used(call: Invocation, keys: Path) -> Mapping[str, Tally]:
    """What was used, as far as the proxy has written it; a file that cannot be read is said to be so."""
    day = day_name(time.time())
    try:
        tallies = read_tally(tally_file(keys))
    except StateError as e:
        if not call.options.json:
            call.say(f"What was used is not known: {e}")
        return {}
    for tally in tallies.values():
        tally.turn(day)
    return tallies


def _list(call: Invocation, keys: Sequence[CallerKey], used: Mapping[str, Tally]) -> int:
    if call.options.json:
        call.say(json.dumps([_shown(key, used.get(key.id, Tally())) for key in keys]))
        return 0
    if not keys:
        call.say("There are no keys. Make one: manage_pod.py keys add NAME")
    for key in keys:
        until = "for ever" if key.expires is None else f"until {_date(key.expires)}"
        tally = used.get(key.id, Tally())
        spent = [f"today {_sum(tally.today)}", f"this month {_sum(tally.this_month)}"]
        only = [f"only {', '.join(key.models)}"] if key.models else []
        call.say("  ".join([key.name, key.id, ",".join(key.scopes), until, *only, _limits(key), *spent]))
    return 0


def _sum(used: Used) -> str:
    usd = dollars(used.usd if used.usd or not used.unpriced else None)
    more = f" and {used.unpriced} requests at a price nobody knows" if used.usd and used.unpriced else ""
    return f"{used.requests} requests, {used.tokens} tokens, {usd}{more}"


def _shown(key: CallerKey, used: Tally) -> dict[str, Any]:
    shown = {name: getattr(key, name) for name in ("id", "name", "scopes", "models", "created", "expires")}
    shown |= {name: getattr(key, name) for name in _BOUNDS}
    return shown | {"used": {"today": asdict(used.today), "this_month": asdict(used.this_month)}}


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _expiry(text: str) -> float:
    """An argument type: ``12h``, ``30d``, ``4w`` from now."""
    found = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 12h, 30d or 4w")
    return time.time() + int(found[1]) * _UNITS[found[2]]


def _bound(text: str) -> int:
    """An argument type: a number above 0, or ``none``."""
    if text == "none":
        return _NO_BOUND
    if not text.isdecimal() or not 0 < int(text) < 10**12:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _usd(text: str) -> float:
    """An argument type: an amount, or ``none``."""
    if text == "none":
        return _NO_BOUND
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount in USD")
    return value


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("add", "limit", "list", "revoke", "rotate"))
    parser.add_argument("name", nargs="?", default="", help="of the key; its id serves too, but for add")
    parser.add_argument(
        "--scope",
        action="append",
        choices=[scope.value for scope in Scope],
        default=[],
        help="default: infer",
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="only this model; repeatable"
    )
    parser.add_argument(
        "--expires", type=_expiry, metavar="30d", help="from now, in h, d or w; default: never"
    )
    for name in _COUNTS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=_bound, metavar="N", help="or `none`")
    for name in _BUDGETS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=_usd, metavar="USD", help="or `none`")
    parser.add_argument(
        "--file", type=Path, metavar="FILE", help="of a proxy that runs alone (LLMPOD_KEYS_FILE)"
    )
    json_flag(parser)


COMMAND = Command("keys", "who may call the proxy: add, limit, list, revoke or rotate a key", run, _arguments)
