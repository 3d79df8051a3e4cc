"""Not the proxy: ``cache why`` makes a request's key as the proxy would, and says what keeps it from being a hit."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from llmpod.cache import MASKS, Contents, KeyPolicy, RequestKey, Stored, question_of, request_key
from llmpod.cli.cache_diff import Difference, differences
from llmpod.cli.cache_place import Place, now, read_input
from llmpod.cli.cache_show import KEY_DIGITS, document
from llmpod.cli.command import Invocation
from llmpod.config import Auth, CallerKey, ProxySettings, digest_of, read_keys
from llmpod.errors import LlmpodError
from llmpod.proxy.ask import Ask, Leave, partition
from llmpod.proxy.hits import can_serve
from llmpod.proxy.route import Destination
from llmpod.proxy.ways_in import find_way
from llmpod.text import duration, one_line

_MOST_SHOWN: Final = 10
_MOST_COMPARED: Final = 5000  # those used last; about a millisecond each where questions are long


@dataclass(frozen=True, slots=True)
class Question:
    """A request, and whose answer it would get."""

    path: str
    body: bytes
    identity: str
    partition: bytes

    def key(
        self, policy: KeyPolicy, *, identity: str | None = None, partition: bytes | None = None
    ) -> RequestKey:
        """Its key, or that of the same question asked elsewhere. Raises BadRequest."""
        return request_key(
            self.path,
            self.body,
            identity=self.identity if identity is None else identity,
            partition=self.partition if partition is None else partition,
            policy=policy,
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """What ``cache why`` says."""

    verdict: str
    reason: str
    key: RequestKey
    found: Stored | None = None
    differences: list[Difference] = field(default_factory=list)


def why(call: Invocation) -> int:
    """Print it; 0 for a HIT, 1 for anything else, as grep does. Raises StateError, BadRequest, LlmpodError."""
    place = Place.of(call, endpoint=call.options.endpoint)
    destinations = place.destinations()
    question = _question(call, place.settings, destinations)
    finding = find(place, question, [d.identity for d in destinations])
    if call.options.json:
        print(json.dumps(_document(finding), indent=2, ensure_ascii=False))
    else:
        for line in _lines(finding):
            call.say(one_line(line))
    return 0 if finding.verdict == "HIT" else 1


# --- the question --------------------------------------------------------------------------------------------
def _question(call: Invocation, settings: ProxySettings, destinations: tuple[Destination, ...]) -> Question:
    options = call.options
    path, body = _split(_input(options.request), options.path)
    asked = Ask("POST", path, path.encode(), [(b"content-type", b"application/json")], body, "")
    asked, destination = find_way(asked, destinations)  # as its model gets it
    secret = call.environ.get(options.caller_key_env or "", "")
    call.veil.learn(secret)
    if options.caller_key_env and not secret:
        raise LlmpodError(f"The variable {options.caller_key_env} is not set.")
    owner = _owner(settings, destination, secret)
    return Question(asked.target.decode("latin-1"), asked.body, destination.identity, owner)


def _owner(settings: ProxySettings, destination: Destination, secret: str) -> bytes:
    """Whose part of the cache it is. Raises LlmpodError for a key that the proxy would not know; ConfigError."""
    if not secret:
        return b""
    if settings.auth is not Auth.KEYS:
        header = (b"authorization", f"Bearer {secret}".encode("latin-1", "replace"))
        return partition([header]) if destination.passes_credentials else b""
    for key in _keys(settings):
        if key.digest == digest_of(secret):
            return _part_of(key)
    raise LlmpodError("The proxy does not know this key.", hint="See `manage_pod.py keys list`.")


def _part_of(key: CallerKey) -> bytes:
    """Its part of the cache, as the proxy finds it."""
    return Ask("POST", "", b"", [], b"", "", leave=Leave(key.id)).owner(passes_credentials=False)


def _keys(settings: ProxySettings) -> tuple[CallerKey, ...]:
    """Those of callers, where they need one."""
    path = settings.keys_file if settings.auth is Auth.KEYS else None
    return read_keys(path) if path is not None else ()


def _input(text: str) -> bytes:
    """The body itself, a file, or standard input; ``@file`` as curl's ``-d`` has it."""
    if text.lstrip().startswith("{"):
        return text.encode()
    return read_input(str(Path(text.removeprefix("@")))).encode()


def _split(body: bytes, path: str) -> tuple[str, bytes]:
    """A body, or a line as ``PREWARM_CACHE`` has them: a path with a body."""
    try:
        value = json.loads(body)
    except ValueError:
        return path, body
    if isinstance(value, dict) and isinstance(value.get("path"), str) and isinstance(value.get("body"), dict):
        return value["path"], json.dumps(value["body"]).encode()
    return path, body


# --- the answer ----------------------------------------------------------------------------------------------
def find(place: Place, question: Question, identities: list[str]) -> Finding:
    """What would happen to it, and why. Raises BadRequest, StateError."""
    key = question.key(place.policy)
    if not key.cacheable:
        return Finding("BYPASS", key.reason, key)
    contents = place.contents()
    exact = next(contents.entries(key.digest.hex()), None) if contents else None
    if contents is None or not len(contents):
        return Finding("MISS", f"nothing is stored in {place.directory}", key)
    if exact is None:
        return _nearest(place, contents, question, identities)
    if place.ttl_seconds is not None and exact.entry.stored_at < now() - place.ttl_seconds:
        return Finding("MISS", "stored, but expired (`cache_ttl_seconds`)", key, exact)
    if not can_serve(exact.entry, key):
        reason = "stored as a stream without token counts, which this form of the request needs"
        return Finding("MISS", reason, key, exact)
    if place.settings.cache_mode == "record":
        return Finding("MISS", "stored, but `cache_mode` record always asks anew", key, exact)
    return Finding("HIT", f"stored {duration(now() - exact.entry.stored_at)} ago", key, exact)


def _nearest(place: Place, contents: Contents, question: Question, identities: list[str]) -> Finding:
    key = question.key(place.policy)
    asked = json.loads(key.question or question.body)
    best: tuple[int, float] | None = None
    found: Stored | None = None
    differing: list[Difference] = []
    for stored in _comparable(contents, question.path):
        here = list(differences(json.loads(stored.entry.request or b"{}"), asked))
        rank = sum(item.weight for item in here), -stored.last_use
        if best is None or rank < best:
            best, found, differing = rank, stored, here
    if found is None:
        return Finding("MISS", f"no answer of {question.path} is stored with its question", key)
    if differing:
        reason = f"no stored question is equal; the nearest one differs{_hidden(place, question, found)}"
        return Finding("MISS", reason, key, found, differing)
    return Finding("MISS", _same_but(place, question, found, identities), key, found)


def _comparable(contents: Contents, path: str) -> Iterator[Stored]:
    for stored in contents.entries(last=_MOST_COMPARED):
        if stored.entry.path == path and stored.entry.request is not None:
            yield stored


def _hidden(place: Place, question: Question, found: Stored) -> str:
    """Whether a rule that is off would have made them equal."""
    for name in sorted(set(MASKS) - place.policy.masks):
        rule = KeyPolicy(masks=place.policy.masks | {name})
        stored = question_of(question.path, found.entry.request or b"", policy=rule)
        if stored and stored == question_of(question.path, question.body, policy=rule):
            return f" only in what the rule {name} takes out, which is off (`cache_masks`)"
    return ""


def _same_but(place: Place, question: Question, found: Stored, identities: list[str]) -> str:
    """The question is equal to the letter, and yet the key is another one."""
    if question.key(place.policy, partition=b"").digest == found.entry.key:
        return "the same question is stored for callers without an API key; each key has answers of its own"
    for caller in _keys(place.settings):
        if question.key(place.policy, partition=_part_of(caller)).digest == found.entry.key:
            return f"the same question is stored for the key {caller.name}; each key has answers of its own"
    for identity in identities:
        if question.key(place.policy, identity=identity).digest == found.entry.key:
            return f"the same question is stored for the model {identity}"
    managed = (
        ""
        if place.settings.endpoint
        else "by a proxy without the manager (name its server: --endpoint URL), "
    )
    return (
        f"the same question is stored {managed}for another caller's API key (see --caller-key-env), for a model"
        " that was served in another way (name, revision, `vllm_args`, `command`), or by an older version of llmpod"
    )


# --- said ----------------------------------------------------------------------------------------------------
def _document(finding: Finding) -> dict[str, Any]:
    found = document(finding.found, now()) if finding.found else None
    rows = [{"path": d.path, "stored": d.stored, "asked": d.asked} for d in finding.differences]
    return {
        "verdict": finding.verdict,
        "reason": finding.reason,
        "key": finding.key.digest.hex(),
        "stored": found,
        "differences": rows,
    }


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{finding.verdict}: {finding.reason}"
    yield f"key      {finding.key.digest.hex()}"
    found = finding.found
    if found is None:
        return
    age = duration(now() - found.entry.stored_at)
    yield f"{'stored ' if finding.verdict == 'HIT' else 'nearest'}  {found.digest[:KEY_DIGITS]} ({age} old)"
    for item in finding.differences[:_MOST_SHOWN]:
        yield f"  {item.path}: {_side(item.stored)} -> {_side(item.asked)}"
    if len(finding.differences) > _MOST_SHOWN:
        yield f"  … and {len(finding.differences) - _MOST_SHOWN} more places (--json lists all)"


def _side(text: str | None) -> str:
    return "(absent)" if text is None else text
