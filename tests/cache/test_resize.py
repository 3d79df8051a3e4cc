"""Limits that change while the cache is in use."""

from pathlib import Path

from tests.cache.helpers import digest, disk_bytes, entry, opened, records, run, until


def test_smaller_limits_hold_at_once_in_the_books_and_soon_on_disk(home: Path) -> None:
    async def test() -> None:
        async with opened(home, max_entries=200, max_bytes=4_000_000, tick_seconds=0.02) as cache:
            for number in range(100):
                cache.put(entry(number, 10_000))
            await cache.flush()
            assert len(records(home)) == 100
            cache.resize(max_entries=200, max_bytes=400_000, ttl_seconds=None)
            assert cache.size_bytes <= 400_000
            assert cache.entries < 40
            await until(lambda: disk_bytes(home) <= 400_000)
            assert await cache.get(digest(99)) == entry(99, 10_000), "the newest stay"
            cache.resize(max_entries=3, max_bytes=400_000, ttl_seconds=None)
            assert cache.entries == 3
            for number in range(200, 210):
                cache.put(entry(number, 10_000))
            await cache.flush()
            assert (cache.entries, len(records(home))) == (3, 3)
        async with opened(home) as cache:
            await cache.flush()
            assert cache.entries == 3

    run(test)


def test_larger_limits_are_used(home: Path) -> None:
    async def test() -> None:
        async with opened(home, max_entries=5, max_bytes=100_000) as cache:
            for number in range(10):
                cache.put(entry(number, 5000))
            assert cache.entries == 5
            cache.resize(max_entries=50, max_bytes=10_000_000, ttl_seconds=None)
            for number in range(10, 40):
                cache.put(entry(number, 20_000))
            await cache.flush()
            assert cache.entries == 35
            assert await cache.get(digest(9)) == entry(9, 5000)

    run(test)


def test_another_time_to_live_counts_for_what_is_stored(home: Path) -> None:
    now = [1795245173.0 + 1000]

    async def test() -> None:
        async with opened(home, ttl_seconds=None, clock=lambda: now[0]) as cache:
            cache.put(entry(1))
            await cache.flush()
            cache.resize(max_entries=50, max_bytes=10**6, ttl_seconds=10)
            assert await cache.get(digest(1)) is None
            cache.resize(max_entries=50, max_bytes=10**6, ttl_seconds=None)
            cache.put(entry(2))
            assert await cache.get(digest(2)) == entry(2)

    run(test)


def test_memory_that_is_given_back_costs_no_entry_that_is_on_disk(home: Path) -> None:
    async def test() -> None:
        async with opened(home) as cache:
            for number in range(20):
                cache.put(entry(number, 5000))
            await cache.flush()
            before = cache.stats()["memory_bytes"]
            cache.relieve()
            assert cache.stats()["memory_bytes"] <= before // 2
            assert cache.entries == 20
            for number in range(20):
                assert await cache.get(digest(number)) == entry(number, 5000)

    run(test)
