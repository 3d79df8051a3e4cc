"""Not the mutator: what is fuzzed within one process, and what each may say to bytes that are wrong.

A target takes bytes and returns; an exception that it does not expect is a finding. Where two ways to read the same
bytes must agree, it compares them.
"""

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmpod.cache.answer import verdict
from llmpod.cache.assemble import assemble
from llmpod.cache.items import batch_of, put_together, taken_apart
from llmpod.cache.jsontext import NotJSON, canonical, read
from llmpod.cache.key import request_key
from llmpod.cache.sse import FrameScanner, iter_frames, parse_events
from llmpod.cache.unroll import strip_usage, unroll
from llmpod.config import load, read_keys
from llmpod.errors import BadRequest, ConfigError, LlmpodError, StateError, UpstreamInvalid
from llmpod.lifecycle.share import Follower
from llmpod.lifecycle.store import Store
from llmpod.proxy.ask import OPEN, Ask, Leave
from llmpod.proxy.browser import Pages
from llmpod.proxy.headers import Headers
from llmpod.proxy.intake import Intake
from llmpod.proxy.origin import Origin
from llmpod.proxy.wish import has_already, pace_of, parse
from tests.proxy.corpus_heads import ACCEPTED, REFUSED
from tests.proxy.stub import chat, frames
from tests.support.source import ROOT

Target = Callable[[bytes], None]
CHAT: Final = "/v1/chat/completions"
PATHS: Final = (CHAT, "/v1/completions", "/v1/messages", "/v1/responses")
LIMIT: Final = 8 * 2**10


@dataclass(frozen=True)
class Fuzzed:
    """One target with what mutants are made of."""

    target: Target
    seeds: tuple[bytes, ...]


# --- requests ---------------------------------------------------------------------------------------------------
class _Listener(Intake):
    """Notes what was understood."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(max_header_bytes=LIMIT, max_body_bytes=LIMIT, loop=loop)
        self.understood: list[object] = []

    def take(self, ask: Ask) -> None:
        self.understood.append((ask.method, ask.target, ask.headers, ask.body, ask.keep))

    def admit(self, method: str, path: str, headers: Headers) -> Leave:
        Pages().check(headers, local="127.0.0.1", tls=False)
        return OPEN

    def refuse(self, error: LlmpodError, cause: BaseException | None) -> None:
        assert cause is None, cause
        self.understood.append(error.status)

    def expected(self) -> None:
        """It would be told to go on."""

    def dropped(self, size: int) -> None:
        """Nobody hears it."""


def request(raw: bytes) -> None:
    """However the bytes are cut on their way, the same is understood."""
    if not raw:
        return  # asyncio tells of no empty reads
    loop = asyncio.new_event_loop()
    try:
        whole, cut = _Listener(loop), _Listener(loop)
        whole.data_received(raw)
        dice = random.Random(raw)
        at = 0
        while at < len(raw):
            size = dice.choice((1, 2, 7, 40, 400))
            cut.data_received(raw[at : at + size])
            at += size
        statuses = [[item for item in seen.understood if isinstance(item, int)] for seen in (whole, cut)]
        assert len(statuses[0]) <= 1
        assert whole.understood == cut.understood, (whole.understood, cut.understood)
    finally:
        loop.close()


def fields(raw: bytes) -> None:
    parse(raw)
    has_already([(b"if-none-match", raw)], b'"a"')
    with suppress(BadRequest):
        pace_of([(b"x-cache-pace", raw)], 0)
    with suppress(ValueError):
        Origin.parse(raw.decode("latin-1"))


def question(raw: bytes) -> None:
    """What is accepted has one meaning, the same to Python's own parser, and one spelling."""
    try:
        value = read(raw)
        spelled = canonical(value)
    except NotJSON:
        assert not any(map(has_key, PATHS, [raw] * len(PATHS)))
        return
    assert json.loads(raw) == value == json.loads(spelled)
    assert canonical(read(spelled)) == spelled
    batch_of(raw)
    assert all(map(has_key, PATHS, [raw] * len(PATHS))) == isinstance(value, dict)


def has_key(path: str, raw: bytes) -> bool:
    try:
        request_key(path, raw)
    except BadRequest:
        return False
    return True


# --- answers ----------------------------------------------------------------------------------------------------
def stream(raw: bytes) -> None:
    """Frames joined are the bytes again; whatever is made of them is whole or refused."""
    assert b"".join(iter_frames(raw)) == raw
    strip_usage(raw)
    for path in PATHS:
        scanner, dice, at = FrameScanner(path), random.Random(raw), 0
        while at < len(raw):
            size = dice.choice((1, 3, 50, 500))
            scanner.feed(raw[at : at + size])
            at += size
        try:
            json.loads(assemble(raw, path=path))
            parse_events(raw)
        except UpstreamInvalid:
            continue


def document(raw: bytes) -> None:
    """What is unrolled is a stream that says what the document said, or refused."""
    for path in PATHS:
        try:
            unrolled = unroll(raw, path=path, include_usage=True)
            assemble(unrolled, path=path)
        except UpstreamInvalid:
            continue
    parts = taken_apart(raw, ["a", "b"])
    if parts is not None:
        json.loads(put_together(parts, like=raw))


def judged(raw: bytes) -> None:
    """Whether an answer is complete is found out of any bytes."""
    for path in (*PATHS, "/v1/embeddings", "/v1/no/such"):
        for streamed in (True, False):
            verdict(raw, stream=streamed, path=path)


# --- files ------------------------------------------------------------------------------------------------------
def files(folder: Path) -> dict[str, Target]:
    """Targets that read a file, which must not be theirs alone to find in order."""

    def put(name: str, raw: bytes) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        path.chmod(0o600)
        return path

    def config(raw: bytes) -> None:
        with suppress(ConfigError):
            load(put("pod_config.json", raw), {})

    def keys(raw: bytes) -> None:
        with suppress(ConfigError):
            read_keys(put("keys.json", raw))

    def state(raw: bytes) -> None:
        path = put("state/pod_state.json", raw)
        with suppress(StateError):
            Store(path).load()
        with suppress(StateError):
            Follower(path).read()

    def orders(raw: bytes) -> None:
        store = Store(folder / "orders/pod_state.json")
        put(f"orders/{store.directory.relative_to(folder / 'orders')}/orders.json", raw)
        put(f"orders/{store.directory.relative_to(folder / 'orders')}/usage.json", raw)
        store.usage()
        with suppress(StateError):
            store.orders()

    return {"config": config, "keys": keys, "state": state, "orders": orders}


_STREAM = b"".join(frames("a", "b", usage=True))
_RESPONSE = (
    b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r","output":[]}}\n\n'
)
_MESSAGE = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","content":[],"usage":{}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"a"}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
_QUESTIONS: tuple[Any, ...] = (
    {"model": "m", "messages": [{"role": "user", "content": "é\U0001f600"}], "stream": True, "n": 1.0},
    {"model": "m", "input": ["a", [1, 2]], "stream_options": {"include_usage": True}},
    [[[1, {"a": None}]], -0.0, 1e300, "\\u0000"],
    {
        "model": "m",
        "input": [{"type": "message", "role": "user", "id": "msg_1"}],
        "tools": [{"type": "function"}],
    },
    {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "<environment_details>\n"}]}],
        "metadata": {},
    },
)
_EMBEDDINGS = (
    b'{"object":"list","data":[{"index":0,"embedding":[0.5]},{"index":1,"embedding":"AAA="}],'
    b'"usage":{"prompt_tokens":4}}'
)
_KEY = (
    b'{"schema": 1, "keys": [{"id": "a", "name": "n", "digest": "' + b"0" * 64 + b'", "scopes": ["infer"], '
    b'"models": ["m"], "created": 1.5, "expires": null, "requests_per_minute": 3}]}'
)
MEMORY: Final[dict[str, Fuzzed]] = {
    "request": Fuzzed(
        request, tuple(raw for raw in (*REFUSED.values(), *ACCEPTED.values()) if len(raw) < 2000)
    ),
    "fields": Fuzzed(
        fields, (b"no-cache, max-age=5", b'W/"a", "b"', b"50", b"https://a.example:1/v1", b"http://[::1]:2")
    ),
    "question": Fuzzed(
        question, tuple(json.dumps(value, ensure_ascii=False).encode() for value in _QUESTIONS)
    ),
    "judged": Fuzzed(judged, (_STREAM, _RESPONSE, _MESSAGE, chat("a"), _EMBEDDINGS)),
    "stream": Fuzzed(stream, (_STREAM, _RESPONSE, _MESSAGE, _STREAM.replace(b"\n", b"\r\n"))),
    "document": Fuzzed(
        document,
        (chat("a"), _EMBEDDINGS, b'{"id":"m","type":"message","content":[{"type":"text","text":"a"}]}'),
    ),
}
FILES: Final[dict[str, tuple[bytes, ...]]] = {
    "config": (
        (ROOT / "pod_config.json").read_bytes(),
        b'{"model": "a/b", "gpu_type_id": "auto", "cors_origins": ["https://a.example"], "vllm_args": ["--x"]}',
    ),
    "keys": (_KEY,),
    "state": ((ROOT / "tests/manager/data/pod_state.schema1.json").read_bytes(),),
    "orders": (
        b'{"default": {"direction": "up", "at": 5.0, "by": "person", "reason": "x", "until": null}}',
        b'{"default": {"last_byte": 5.0, "in_flight": 2, "wake_wanted": null, "requests": 3}}',
    ),
}
