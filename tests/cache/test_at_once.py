"""Several things at the same time."""

import asyncio
import random
import threading
from pathlib import Path

import pytest

from llmpod.cache import Disk
from tests.cache.helpers import digest, disk_bytes, entry, fill, opened, records, run, short


def test_stored_while_the_older_one_is_being_read(home: Path) -> None:
    async def test() -> None:
        await fill(home, 1)
        async with opened(home) as cache:
            await cache.flush()
            reading = asyncio.create_task(cache.get(digest(1)))
            await asyncio.sleep(0)
            newer = entry(1, 300)
            cache.put(newer)
            assert await reading == newer
            assert cache.peek(digest(1)) == newer

    run(test)


def test_dropped_while_the_directory_is_being_indexed(home: Path) -> None:
    async def test() -> None:
        await fill(home, *range(30))
        async with opened(home) as cache:
            await asyncio.sleep(0)  # the scan is on its way now, and will find the record
            assert cache.disk is Disk.SCANNING
            await cache.drop(digest(7))
            await cache.flush()
            assert cache.entries == len(records(home)) == 29
            assert short(7) not in cache.lru_order()
            assert await cache.get(digest(7)) is None

    run(test)


def test_evicting_what_somebody_reads(home: Path) -> None:
    """Exact bytes or nothing, while other entries push it out of memory and off the disk."""

    async def test() -> None:
        async with opened(home, max_entries=8, memory_bytes=5_000) as cache:
            hits = 0

            async def read(number: int) -> None:
                nonlocal hits
                found = await cache.get(digest(number))
                if found is not None:
                    assert found == entry(number)
                    hits += 1

            for number in range(400):
                cache.put(entry(number))
                if number % 5 == 0:
                    await cache.flush()  # else all of it would be served on its way to the disk
                await asyncio.gather(*(read(max(0, number - back)) for back in range(10)))
            assert hits > 400
            assert cache.stats()["corrupt"] == 0
            assert cache.stats()["disk_hits"] > 100

    run(test)


@pytest.mark.parametrize("memory", [4_000, 10**6])
def test_both_limits_hold_on_disk_at_every_moment(home: Path, memory: int) -> None:
    """Counted newest file first: whatever is still there afterwards was there before, too."""
    limit, seen = 100_000, [0]
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append(disk_bytes(home))

    async def test() -> None:
        async with opened(home, max_entries=120, max_bytes=limit, memory_bytes=memory) as cache:
            watcher = threading.Thread(target=watch)
            watcher.start()
            dice, stored = random.Random(1), 0
            try:
                for number in range(3000):
                    cache.put(entry(dice.randrange(160), dice.choice([100, 500, 3000])))
                    await cache.get(digest(dice.randrange(160)))
                    stored += 1
                    assert cache.entries <= 120
                    assert cache.size_bytes <= limit
                    if number % 10 == 0:
                        await cache.flush()
            finally:
                over.set()
                watcher.join()
            assert cache.stats()["corrupt"] == 0
            assert len(records(home)) > 20, "there is a cache on disk at all"

    run(test)
    assert limit / 2 < max(seen) <= limit
    assert len(seen) > 100


def test_the_loop_never_waits_for_the_disk(home: Path) -> None:
    async def test() -> None:
        async with opened(home, max_entries=3000, max_bytes=10**8) as cache:
            await cache.flush()
            for number in range(3000):
                cache.put(entry(number, 10_000))
            turns, flushing = 0, asyncio.create_task(cache.flush())
            while not flushing.done():
                await asyncio.sleep(0)
                turns += 1
            assert turns > 50
            assert len(records(home)) == 3000

    run(test)


def test_more_at_once_than_the_writer_is_given(home: Path) -> None:
    """40 MiB in one step: what does not fit into the queue stays in memory and is written later."""

    async def test() -> None:
        async with opened(home, max_bytes=10**8) as cache:
            await cache.flush()
            for number in range(40):
                assert cache.put(entry(number, 2**20))
            assert cache.stats()["waiting"] < 40
            assert cache.stats()["waiting"] + cache.stats()["unsaved"] == 40
            await cache.flush()
            assert len(records(home)) == 40
            assert cache.stats()["unsaved"] == 0

    run(test)
