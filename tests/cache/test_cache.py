"""What the cache promises while nothing goes wrong."""

from pathlib import Path

import pytest

from llmpod.cache import Cache, Disk, Entry
from tests.cache.helpers import body_of, digest, disk_bytes, entry, fill, opened, records, run, short, until


def test_what_was_stored_is_there_at_once_and_after_a_restart(home: Path) -> None:
    async def test() -> None:
        async with opened(home) as cache:
            assert cache.put(entry(1))
            assert cache.peek(digest(1)) == entry(1)
            assert await cache.get(digest(2)) is None
        async with opened(home) as cache:
            assert cache.peek(digest(1)) is None
            assert await cache.get(digest(1)) == entry(1)
            assert cache.peek(digest(1)) == entry(1), "it is in memory now"
            assert cache.stats()["disk_hits"] == 1

    run(test)


def test_it_serves_before_the_directory_is_indexed(home: Path) -> None:
    async def test() -> None:
        await fill(home, *range(20))
        async with opened(home) as cache:
            assert cache.disk is Disk.SCANNING
            cache.put(entry(50))
            assert await cache.get(digest(7)) == entry(7)
            await cache.flush()
            assert (cache.disk, cache.entries) == (Disk.READY, 21)
            assert cache.size_bytes == sum(records(home).values())
            assert cache.lru_order()[-2:] == [short(50), short(7)]

    run(test)


def test_limits_and_order(home: Path) -> None:
    async def test() -> None:
        async with opened(home, max_entries=3) as cache:
            for number in range(3):
                cache.put(entry(number))
            assert cache.peek(digest(0))
            cache.put(entry(3))
            assert cache.lru_order() == [short(number) for number in (2, 0, 3)]
            await cache.flush()
            assert set(records(home)) >= set(cache.lru_order())
            assert cache.stats()["evicted"] == 1

    run(test)


def test_smaller_limits_hold_after_a_restart(home: Path) -> None:
    async def test() -> None:
        await fill(home, *range(20))
        async with opened(home, max_entries=5) as cache:
            await cache.flush()
            assert cache.lru_order() == [short(number) for number in range(15, 20)]
        async with opened(home, max_bytes=entry(0).size * 3) as cache:
            await cache.flush()
            assert cache.entries == 2
            await until(lambda: disk_bytes(home) <= cache.max_bytes)

    run(test)


def test_what_is_too_large_is_not_stored(home: Path) -> None:
    async def test() -> None:
        async with opened(home, entry_bytes=1000, max_bytes=10**5) as cache:
            assert not cache.put(entry(1, 1001))
            assert cache.put(entry(2, 1000))
        async with opened(home, max_bytes=500) as cache:
            assert not cache.put(entry(3, 500))
        async with opened(home, memory_bytes=3000) as cache:
            assert not cache.put(entry(3, 3000))
        async with opened(None, max_entries=0) as cache:
            assert not cache.put(entry(4, 1))
            assert cache.stats()["too_large"] == 1

    run(test)


def test_usage_is_never_lost(home: Path) -> None:
    async def test() -> None:
        with_usage, without = entry(1), entry(1, has_usage=False)
        async with opened(home, memory_bytes=2500) as cache:
            assert cache.put(without)
            assert cache.put(with_usage)
            assert not cache.put(without)
            assert cache.peek(digest(1)) == with_usage
            await cache.flush()
            cache.put(entry(2))  # there is room in memory for one only
            assert not cache.put(without), "it is on disk, and may say more"
            assert await cache.drop(digest(1))
            assert cache.put(without)
        async with opened(home) as cache:
            assert cache.put(without), "not indexed yet"
            await cache.flush()
            assert await cache.get(digest(1)) == without
            await cache.drop(digest(1))
            cache.put(with_usage)
        async with opened(home) as cache:
            cache.put(without)
            await cache.flush()
            assert await cache.get(digest(1)) == with_usage, "the older record stays"

    run(test)


def test_dropped_is_gone_for_good(home: Path) -> None:
    async def test() -> None:
        async with opened(home) as cache:
            cache.put(entry(1))
            cache.put(entry(3))
            await cache.flush()
            assert set(records(home)) == {short(1), short(3)}
            assert await cache.drop(digest(3))
            assert await cache.drop(digest(1))
            assert records(home) == {}
            assert not await cache.drop(digest(1))
            cache.put(entry(2))
        async with opened(home) as cache:
            assert await cache.drop(digest(2)) in (True, False), "it may not be indexed yet"
            assert await cache.get(digest(2)) is None
            await cache.flush()
            assert (cache.entries, cache.size_bytes, records(home)) == (0, 0, {})

    run(test)


def test_prebuilt_responses_count_and_stay_within_the_bound() -> None:
    async def test() -> None:
        async with opened(None, memory_bytes=10_000) as cache:
            for number in range(4):
                cache.put(entry(number))
            before = cache.stats()["memory_bytes"]
            kept = cache.peek(digest(0))
            assert kept
            cache.attach(kept, "json", bytes(1000))
            assert kept.prebuilt == {"json": bytes(1000)}
            assert cache.stats()["memory_bytes"] == before + 1000
            assert kept == entry(0), "buffers are no part of the answer"
            cache.attach(kept, "sse", bytes(5000))
            assert cache.stats()["memory_bytes"] <= 10_000
            assert cache.peek(digest(0)) is kept
            assert cache.entries < 4
            cache.attach(kept, "huge", bytes(10_000))
            cache.attach(entry(77), "json", b"x")
            assert set(kept.prebuilt) == {"json", "sse"}
            await cache.drop(digest(0))
            cache.attach(kept, "json", b"y")
            assert kept.prebuilt["json"] == bytes(1000), "it is no longer in the cache"
            for number in range(10, 30):
                cache.put(entry(number))
                assert cache.stats()["memory_bytes"] <= 10_000

    run(test)


def test_memory_alone_is_a_cache_too() -> None:
    async def test() -> None:
        async with opened(None, max_entries=2) as cache:
            for number in range(3):
                cache.put(entry(number))
            assert await cache.get(digest(0)) is None
            assert await cache.get(digest(2)) == entry(2)
            await cache.flush()
            await cache.drop(digest(2))
            assert (cache.disk, cache.degraded, cache.entries) == (Disk.OFF, None, 1)

    run(test)


def test_closing_twice_and_using_it_afterwards(home: Path) -> None:
    async def test() -> None:
        cache = await Cache.open(home, max_entries=5, max_bytes=10**6)
        cache.put(entry(1))
        await cache.aclose()
        await cache.aclose()
        assert cache.peek(digest(1)) == entry(1)
        for number in range(10):
            cache.put(entry(number))
        assert await cache.get(digest(9)) == entry(9)
        await cache.flush()

    run(test)
    assert len(records(home)) == 1


def test_bodies_follow_from_keys() -> None:
    one: Entry = entry(1)
    assert one.body == body_of(one.key, 500)
    assert one.etag == entry(1).etag != entry(2).etag
    with pytest.raises(ValueError, match="32 bytes"):
        entry(1, key=b"short")
