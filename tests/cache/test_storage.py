"""Time and room: entries expire, dead space is tidied away, a large directory is known soon."""

import asyncio
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llmpod.cache import Disk
from tests.cache.helpers import ROOT, digest, disk_bytes, entry, opened, records, run, segments, short, until


class Clock:
    def __init__(self) -> None:
        self.now = 1795245173.0 + 10

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> bool:
        self.now += seconds
        return True


def test_what_has_expired_is_a_miss_wherever_it_is(home: Path) -> None:
    clock = Clock()

    async def test() -> None:
        options = {"clock": clock, "ttl_seconds": 100.0, "tick_seconds": 0.02}
        async with opened(home, memory_bytes=2000, **options) as cache:
            await cache.flush()
            cache.put(entry(1))
            cache.put(entry(2))
            await cache.flush()
            clock.now += 80
            assert await cache.get(digest(1)) == entry(1), "from disk"
            cache.put(replace(entry(3), stored_at=clock.now))
            clock.now += 40
            assert await cache.get(digest(1)) is None
            assert await cache.get(digest(2)) is None
            assert (await cache.get(digest(3))) == replace(entry(3), stored_at=clock.now - 40)
            cache.put(replace(entry(2), stored_at=clock.now))
            assert await cache.get(digest(2)) is not None
        async with opened(home, **options) as cache:
            assert await cache.get(digest(3)) is not None
            await until(lambda: clock.passes(100) and not segments(home))
            assert await cache.get(digest(3)) is None
            assert cache.entries == 0

    run(test)


def test_dead_space_is_tidied_away_and_what_is_wanted_stays(home: Path) -> None:
    """A tenth is used all the time, the rest comes and goes: many times what the directory may hold."""

    async def test() -> None:
        dice, wanted = random.Random(3), list(range(40))
        async with opened(home, max_entries=10_000, max_bytes=10**6, memory_bytes=20_000) as cache:
            await cache.flush()
            for number in wanted:
                cache.put(entry(number))
            for number in range(1000, 6000):
                cache.put(entry(number, dice.randrange(1000)))
                known = dice.choice(wanted)
                assert await cache.get(digest(known)) == entry(known)
                assert disk_bytes(home) <= 10**6
            await cache.flush()
            assert cache.size_bytes > 500_000, "room is used"
            assert cache.stats()["corrupt"] == 0
            assert cache.stats()["unsaved"] == 0
            order = cache.lru_order()
        async with opened(home, max_entries=10_000, max_bytes=10**6) as cache:
            await cache.flush()
            assert cache.lru_order() == order
            for number in wanted:
                assert await cache.get(digest(number)) == entry(number)

    run(test)


def test_order_and_entries_survive_without_the_snapshot(home: Path) -> None:
    async def test() -> None:
        async with opened(home) as cache:
            await cache.flush()
            for number in range(20):
                cache.put(entry(number))
            for number in (3, 1, 4):
                assert cache.peek(digest(number))
        (home / "index").unlink()
        async with opened(home) as cache:
            await cache.flush()
            assert cache.lru_order()[-3:] == [short(3), short(1), short(4)]
            assert cache.entries == 20

    run(test)


def test_many_restarts_leave_few_files(home: Path) -> None:
    async def test() -> None:
        for number in range(150):
            async with opened(home, max_entries=1000) as cache:
                await cache.flush()
                cache.put(entry(number, 50))
        async with opened(home, max_entries=1000) as cache:
            await until(lambda: cache.disk is Disk.READY and len(segments(home)) < 100)
            await cache.flush()
            assert len(records(home)) == cache.entries == 150
            assert await cache.get(digest(3)) == entry(3, 50)

    run(test)


def test_reading_what_is_being_tidied(home: Path) -> None:
    """Exact bytes, always: the copy is there before the original goes."""

    async def test() -> None:
        async with opened(home, max_entries=500, max_bytes=300_000, memory_bytes=5000) as cache:
            await cache.flush()
            for number in range(200):
                cache.put(entry(number))
            await cache.flush()

            async def read() -> None:
                for _ in range(300):
                    known = random.randrange(195, 200)
                    assert await cache.get(digest(known)) == entry(known)

            async def write() -> None:
                for number in range(1000, 2500):
                    cache.put(entry(number, 800))
                    if number % 10 == 0:
                        await asyncio.sleep(0.001)

            await asyncio.gather(write(), *(read() for _ in range(4)))

    run(test)


def started(home: Path, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.cache.million"]
    done = subprocess.run([*command, "start", home, str(count)], cwd=ROOT, capture_output=True, check=True)
    return dict(json.loads(done.stdout))


def large(home: Path, count: int) -> tuple[dict[str, float], dict[str, float]]:
    """Two starts: after a clean end, and without a snapshot, as after a crash."""
    command = [sys.executable, "-m", "tests.cache.million", "fill", str(home), str(count)]
    subprocess.run(command, cwd=ROOT, check=True)
    clean = started(home, count)
    (home / "index").unlink()
    crashed = started(home, count)
    for figures in (clean, crashed):
        assert figures["entries"] >= count
        assert figures["exact"] == len(range(0, count, max(1, count // 500)))
        assert figures["open_seconds"] < 0.5, "it serves at once"
    return clean, crashed


def test_a_start_with_many_entries(tmp_path: Path) -> None:
    clean, crashed = large(tmp_path / "cache", 20_000)
    assert clean["ready_seconds"] < 3
    assert crashed["ready_seconds"] < 10


@pytest.mark.long
def test_a_start_with_a_million_entries(tmp_path: Path) -> None:
    """Bounds are several times what an idle machine takes: 0.6 s and 4 s, 40 ms.

    Memory for an entry is 127 bytes from a snapshot, 149 to 165 where tables have grown with what was found.
    """
    clean, crashed = large(tmp_path / "cache", 1_000_000)
    assert clean["ready_seconds"] < 5
    assert crashed["ready_seconds"] < 30
    for figures, most in ((clean, 150), (crashed, 200)):
        assert figures["longest_wait_seconds"] < 0.3
        assert figures["bytes_each"] < most


def test_a_record_makes_room_for_the_one_that_takes_its_place(home: Path) -> None:
    """In a cache so small that both do not fit, and where the first is on its way to the disk already."""

    async def test() -> None:
        async with opened(home, max_entries=1, max_bytes=1500) as cache:
            await cache.flush()
            cache.put(entry(0, 700))
            cache.put(entry(0, 701))
            await cache.flush()
            assert records(home) == {short(0): entry(0, 701).size}

    run(test)
