"""Not a corpus: raw inputs for the edge by chance, the same for the same seed.

Four kinds in turn: small faults in the corpus; small faults in good requests of every sort; good frames around
bodies and fields by chance, so that what lies behind the parser is reached too; and several of these in a row.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.proxy.corpus import CODING, HOST, LENGTH, TYPE, message
from tests.proxy.corpus_heads import ACCEPTED, REFUSED

SHORT: Final = 2000  # longer ones of the corpus are about limits, and slow to send by the thousand
PATHS: Final = (
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages", "/v1/responses", "/v1/models",
    "/v1/rerank", "/tokenize", "/livez", "/readyz", "/health", "/metrics", "/dashboard", "/debug/cache",
)  # fmt: skip
METHODS: Final = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE")
FIELDS: Final[dict[bytes, tuple[bytes, ...]]] = {
    b"Cache-Control": (b"no-cache", b"no-store", b"max-age=0", b"max-age=99999999999999999999", b"\xff,=,,"),
    b"Connection": (b"close", b"keep-alive", b"authorization, host", b"upgrade"),
    b"Upgrade": (b"websocket", b"h2c"),
    b"Expect": (b"100-continue", b"100-Continue", b"x"),
    b"Authorization": (b"Bearer a", b"Basic %%%", b"Basic YTpi", b"\xe9"),
    b"X-Api-Key": (b"a", b""),
    b"Origin": (b"null", b"http://localhost", b"vscode-webview://a", b"\xff"),
    b"Sec-Fetch-Site": (b"cross-site", b"same-origin", b"none"),
    b"If-None-Match": (b"*", b'"a"', b'W/"a", "b"', b","),
    b"X-Cache-Pace": (b"0", b"5000", b"-1", b"a", b"\xb2"),
    b"Accept": (b"text/html", b"text/plain; q=x", b"application/openmetrics-text", b"*/*;q=0," * 20),
    b"Content-Type": (b"application/json", b"text/plain", b"application/json; charset=\xff", b"a/b/c;;;="),
    b"X-Stainless-Retry-Count": (b"1", b"x"),
    b"Idempotency-Key": (b"a", b"\xff"),
}
VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1.5, 10**30, "", "x", "é\U0001f600", "\x00", [], {}, [[]], [None], {"": {}},
    [[1, 2], "a"], {"include_usage": True}, {"include_usage": "x"}, [{"role": "user", "content": "hi"}],
    [{"type": "text"}], "m",
)  # fmt: skip
MEMBERS: Final = (
    "model", "messages", "stream", "stream_options", "input", "prompt", "n", "tools", "store", "max_tokens", "system",
    "previous_response_id", "encoding_format", "user", "metadata", "kv_transfer_params",
)  # fmt: skip
SPICE: Final = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\xff", b"0", b",", b"{", b"[", b'"', b"\\ud800", b"1e999",
    CODING, LENGTH, HOST, TYPE, b"\r\n\r\n",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Input:
    """What one connection sends. ``patient``: an answer is waited for before the end of sending is told."""

    pieces: tuple[bytes, ...]
    patient: bool


def inputs(count: int, *, seed: int) -> Iterator[Input]:
    """So many connections' worth."""
    dice = random.Random(seed)
    stock = [raw for raw in (*REFUSED.values(), *ACCEPTED.values()) if len(raw) < SHORT]
    for number in range(count):
        match number % 4:
            case 0:
                raw = faulty(dice.choice(stock), dice, stock)
            case 1:
                raw = faulty(good(dice), dice, stock)
            case 2:
                raw = good(dice)
            case _:
                raw = b"".join(good(dice) for _ in range(dice.randint(1, 3))) + dice.choice(stock)
        yield Input(cut(raw, dice), patient=number % 16 == 2)


def good(dice: random.Random) -> bytes:
    """One request that is framed as it should be; what it asks may be nonsense."""
    method, path = dice.choice(METHODS), dice.choice(PATHS)
    fields = [b"Host: localhost\r\n"]
    more = dice.sample(tuple(FIELDS), dice.choice((0, 0, 1, 2)))
    fields += [b"%b: %b\r\n" % (name, dice.choice(FIELDS[name])) for name in more]
    body = document(dice) if method in ("POST", "PUT") else b""
    if body:
        fields += [TYPE] if not any(field.startswith(b"Content-Type") for field in fields) else []
        fields.append(b"Content-Length: %d\r\n" % len(body))
    return message(b"".join(fields), body, line=f"{method} {path} HTTP/1.1\r\n".encode())


def document(dice: random.Random) -> bytes:
    """A JSON body that is often a request and sometimes no JSON."""
    members = {name: dice.choice(VALUES) for name in dice.sample(MEMBERS, dice.randint(0, 4))}
    if dice.random() < 0.7:
        members |= {"model": "m", "messages": [{"role": "user", "content": dice.choice("abc")}]}
    raw = json.dumps(members).encode()
    return faulty(raw, dice, [raw]) if dice.random() < 0.3 else raw


def faulty(raw: bytes, dice: random.Random, stock: list[bytes]) -> bytes:
    """The same with one to four small faults."""
    changed = bytearray(raw)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(changed) + 1)
        match dice.randrange(5):
            case 0:
                changed[at:at] = dice.choice(SPICE)
            case 1:
                del changed[at : at + dice.randint(1, 8)]
            case 2:
                changed[at : at + 1] = bytes([dice.randrange(256)])
            case 3:
                other = dice.choice(stock)
                changed[at:] = other[dice.randrange(len(other) + 1) :]
            case _:
                changed[at:at] = changed[at : at + dice.randint(1, 40)]
    return bytes(changed)


def cut(raw: bytes, dice: random.Random) -> tuple[bytes, ...]:
    """In one piece, or in up to four."""
    if dice.random() < 0.6:
        return (raw,)
    places = sorted(dice.randrange(len(raw) + 1) for _ in range(dice.randint(1, 3)))
    ends = zip([0, *places], [*places, len(raw)], strict=True)
    return tuple(raw[begin:end] for begin, end in ends if begin < end)


def reshaped(raw: bytes, dice: random.Random) -> bytes:
    """The same JSON, or stream of it, with one value by another of any type, or without it."""
    pieces = raw.split(b"data: ")
    at = dice.randrange(len(pieces))
    text, end, rest = pieces[at].partition(b"\n\n")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return raw
    pieces[at] = json.dumps(_replaced(value, dice)).encode() + end + rest
    return b"data: ".join(pieces)


def _replaced(value: Any, dice: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or dice.random() < 0.1:
        return dice.choice(VALUES)
    name, inner = dice.choice(list(value.items() if isinstance(value, dict) else enumerate(value)))
    changed: Any = value.copy()
    if dice.random() < 0.1:
        del changed[name]
    else:
        changed[name] = _replaced(inner, dice)
    return changed
