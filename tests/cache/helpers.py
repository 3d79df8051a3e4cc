"""What the tests of the cache share: entries whose body follows from their number, and answers to convert."""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from llmpod.cache import Cache, Entry
from llmpod.cache.entry import DEAD, ENTRY
from llmpod.cache.walk import Frame, Walk

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "real"
DATA = Path(__file__).parent / "data"


def digest(number: int) -> bytes:
    return sha256(b"question %d" % number).digest()


def body_of(key: bytes, size: int) -> bytes:
    return random.Random(key).randbytes(size)


def entry(number: int, size: int = 500, *, has_usage: bool = True, key: bytes | None = None) -> Entry:
    key = key or digest(number)
    return Entry(
        key=key,
        path=CHAT,
        stream=False,
        content_type="application/json",
        body=body_of(key, size),
        stored_at=1795245173.0 + number,
        model="tiny",
        has_usage=has_usage,
    )


def segments(directory: Path) -> list[Path]:
    """The files of a cache directory that hold entries, in the order in which they were begun."""
    return sorted(directory.glob("*.seg"))


def frames_in(path: Path) -> list[Frame]:
    """The records in one of them that are not erased; lists of uses left out."""
    fd = os.open(path, os.O_RDONLY)
    try:
        found = list(Walk(fd, 0, path.stat().st_size))
    finally:
        os.close(fd)
    return [frame for frame in found if frame.kind == ENTRY and frame.state != DEAD]


def records(directory: Path) -> dict[str, int]:
    """Bytes of the last record of each key on disk, by the first 15 digits of the key."""
    return {f.key.hex()[:15]: f.length for path in segments(directory) for f in frames_in(path)}


def short(number: int) -> str:
    """How the cache names an entry in its order of use."""
    return digest(number).hex()[:15]


def disk_bytes(directory: Path) -> int:
    """Bytes of all files, the newest segment first."""
    sizes = []
    for path in sorted(directory.glob("*"), reverse=True):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


async def until(condition: Callable[[], object], *, within: float = 10.0) -> None:
    """Polls on the running loop until the condition holds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what is waited for is often outside the loop
            await asyncio.sleep(0.005)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a test on a loop of its own, 30 s at most."""

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


@asynccontextmanager
async def opened(directory: Path | None, **options: Any) -> AsyncIterator[Cache]:
    options = {"max_entries": 100, "max_bytes": 10**7, "tick_seconds": 0.05, "ttl_seconds": None, **options}
    async with await Cache.open(directory, **options) as cache:
        yield cache


async def fill(directory: Path, *numbers: int, **options: Any) -> None:
    async with opened(directory, **options) as cache:
        for number in numbers:
            assert cache.put(entry(number))


def exchange(path: Path) -> tuple[int, bool, bytes]:
    """Status, whether it is a stream, and body of a recorded HTTP exchange."""
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    return int(head.split()[1]), b"text/event-stream" in head.lower(), body


def without_nulls(value: Any) -> Any:
    """Null and absent are the same to every client."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def frames(*chunks: dict[str, Any], done: bool = True) -> bytes:
    body = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks)
    return body + b"data: [DONE]\n\n" if done else body


def chunk(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "tiny", "choices": [choice]}
