"""Purging a directory that caches are using: they forget, in memory and on disk."""

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmpod.cache import Cache, Disk, Entry, purge
from llmpod.errors import StateError
from tests.cache.helpers import digest, entry, opened, records, run, segments, short, until

SECRET = b"CANARY-" + b"x" * 60


def holds(home: Path, word: bytes) -> bool:
    return any(word in path.read_bytes() for path in segments(home))


def notices(home: Path) -> list[Path]:
    return sorted(home.glob("purge*"))


def secret(number: int) -> Entry:
    return replace(entry(number), body=SECRET, request=SECRET)


async def filled(cache: Cache) -> None:
    await until(lambda: cache.disk is Disk.READY)
    for number in range(6):
        cache.put(secret(number) if number == 2 else entry(number))
    await cache.flush()


@pytest.mark.parametrize("memory", [10**7, 0], ids=["in memory", "on disk"])
def test_the_process_that_writes_forgets(home: Path, memory: int) -> None:
    async def test() -> None:
        async with opened(home, memory_bytes=memory or 1500) as cache:
            await filled(cache)
            assert holds(home, SECRET)
            assert await asyncio.to_thread(purge, home, lambda found: found.body == SECRET) == 1
            assert not holds(home, b"CANARY")
            assert await cache.get(digest(2)) is None
            assert await cache.get(digest(3)) == entry(3)
            assert cache.put(secret(2)), "it may come back"
            assert await cache.get(digest(2)) is not None
        async with opened(home) as cache:
            await cache.flush()
            assert cache.entries == 6

    run(test)


def test_everything_goes_with_its_files(home: Path) -> None:
    async def test() -> None:
        async with opened(home, memory_bytes=4000) as cache:
            await filled(cache)
            assert await asyncio.to_thread(purge, home) == 6
            assert (cache.entries, cache.size_bytes, segments(home)) == (0, 0, [])
            for number in range(6):
                assert await cache.get(digest(number)) is None
            cache.put(entry(7))
            await cache.flush()
            assert list(records(home)) == [short(7)]
            await until(lambda: cache.stats()["disk"] == "ready")
        async with opened(home) as cache:
            await cache.flush()
            assert (cache.entries, await cache.get(digest(7))) == (1, entry(7))

    run(test)


def test_one_that_only_reads_here_forgets_too(home: Path) -> None:
    async def test() -> None:
        async with opened(home) as writer:
            await filled(writer)
            async with opened(home) as reader:
                await until(lambda: reader.disk is Disk.SHARED)
                for number in range(6):
                    assert await reader.get(digest(number)) is not None
                assert await asyncio.to_thread(purge, home, lambda found: found.key == digest(2)) == 1
                await until(lambda: reader.peek(digest(2)) is None)
                assert await reader.get(digest(2)) is None
                assert await reader.get(digest(3)) == entry(3)

    run(test)


def test_many_keys_take_several_notices(home: Path) -> None:
    async def test() -> None:
        async with opened(home, max_entries=10_000) as cache:
            for number in range(5000):
                cache.put(entry(number, 10))
            await cache.flush()
            purged = await asyncio.to_thread(purge, home, lambda found: found.key != digest(4999))
            assert (purged, cache.entries) == (4999, 1)

    run(test)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"keys": [1], "known": 0}',
        b'{"keys": ["zz"], "known": 0}',
        b"x" * 2**21,
        b'{"keys": [], "known": 1e999}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_notice_is_passed_over(home: Path, text: bytes) -> None:
    async def test() -> None:
        async with opened(home) as cache:
            await filled(cache)
            (home / "purge-bad").write_bytes(text)
            bait = home.parent / "bait"
            bait.write_text('{"keys": [], "known": 0}')
            (home / "purge-link").symlink_to(bait)
            os.mkfifo(home / "purge-pipe")
            assert await asyncio.to_thread(purge, home, lambda found: found.key == digest(1)) == 1
            assert (cache.entries, cache.degraded) == (5, None)
            assert bait.read_text() == '{"keys": [], "known": 0}'

    run(test)


def test_an_answer_is_removed_after_a_minute(home: Path) -> None:
    async def test() -> None:
        async with opened(home) as cache:
            await filled(cache)
            assert await asyncio.to_thread(purge, home, lambda found: found.key == digest(1)) == 1
            (done,) = notices(home)
            assert json.loads(done.read_text())["known"] == 1
            os.utime(done, (1, 1))
            await until(lambda: not done.exists())

    run(test)


@pytest.mark.parametrize("wanted", [None, lambda _: True])
def test_what_is_no_cache_does_not_become_one(tmp_path: Path, wanted: Any) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(StateError, match="there is no cache in it"):
        purge(tmp_path, wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
