# ruff: noqa: ASYNC240 - these tests have the loop to themselves, and files are what they are about
import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llmpod.cache import Cache, Disk, Entry
from tests.cache.helpers import body_of, digest, entry, records, until

Test = Callable[[], Coroutine[Any, Any, None]]


def run(test: Test) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


@asynccontextmanager
async def opened(directory: Path | None, **options: Any) -> AsyncIterator[Cache]:
    options = {"max_entries": 100, "max_bytes": 10**7, "tick_seconds": 0.05, **options}
    async with await Cache.open(directory, **options) as cache:
        yield cache


async def fill(directory: Path, *numbers: int, **options: Any) -> None:
    async with opened(directory, **options) as cache:
        for number in numbers:
            assert cache.put(entry(number))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "parent" / "cache"


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
            assert cache.size_bytes == sum(path.stat().st_size for path in records(home))
            assert cache.lru_order()[-2:] == [digest(50).hex(), digest(7).hex()]

    run(test)


def test_only_we_may_look(home: Path) -> None:
    run(lambda: fill(home, 1))
    assert home.stat().st_mode & 0o777 == 0o700
    for path in home.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_an_old_directory_of_ours_is_made_private(home: Path) -> None:
    run(lambda: fill(home, 1))
    home.chmod(0o755)
    run(lambda: fill(home, 2))
    assert home.stat().st_mode & 0o777 == 0o700


def test_foreign_files_are_left_alone(home: Path) -> None:
    home.mkdir(parents=True, mode=0o755)
    home.chmod(0o755)
    for name in ("notes.txt", "ab", "00/notes", "00/" + "0" * 63, "00/" + "f" * 64):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text("mine")
    run(lambda: fill(home, 1))
    assert home.stat().st_mode & 0o777 == 0o755
    assert all(
        (home / name).read_text() == "mine" for name in ("notes.txt", "ab", "00/notes", "00/" + "0" * 63)
    )


def degraded_at(directory: Path) -> str:
    """Why the directory is refused; and that the cache works all the same, in memory."""
    reasons = []

    async def test() -> None:
        async with opened(directory) as cache:
            assert cache.put(entry(1))
            assert await cache.get(digest(1)) == entry(1)
            await cache.flush()
            assert (cache.disk, cache.entries, cache.stats()["unsaved"]) == (Disk.BROKEN, 1, 1)
            assert cache.degraded
            reasons.append(cache.degraded)

    run(test)
    assert str(directory) in reasons[0]
    return reasons[0]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to("elsewhere")
    assert "cannot be opened as a directory" in degraded_at(tmp_path / "cache")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    assert "cannot be opened as a directory" in degraded_at(tmp_path / "cache")


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    degraded_at(tmp_path / "file" / "cache")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_directory_is_refused(home: Path) -> None:
    home.mkdir(parents=True)
    os.chown(home, 12345, -1)
    assert "belongs to user 12345" in degraded_at(home)


def test_a_directory_that_others_may_write_is_refused(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "theirs").write_text("")
    home.chmod(0o777)
    assert "others may write" in degraded_at(home)


def test_a_refused_directory_is_used_once_it_is_usable(home: Path) -> None:
    async def test() -> None:
        home.parent.mkdir()
        home.write_text("in the way")
        async with opened(home) as cache:
            cache.put(entry(1))
            assert cache.degraded
            home.unlink()
            await until(lambda: cache.disk is Disk.READY)
            await cache.flush()
            assert cache.stats()["degraded"] is None
        async with opened(home) as cache:
            assert await cache.get(digest(1)) == entry(1)

    run(test)


@pytest.mark.parametrize("how", ["directory", "contents"])
def test_removing_the_directory_means_forget(home: Path, how: str) -> None:
    async def test() -> None:
        async with opened(home) as cache:
            for number in range(5):
                cache.put(entry(number))
            await cache.flush()
            if how == "directory":
                shutil.rmtree(home)
            else:
                for path in home.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            await until(lambda: cache.entries == 0)
            assert await cache.get(digest(1)) is None
            assert cache.put(entry(9))
            await cache.flush()
            assert len(records(home)) == 1
        async with opened(home) as cache:
            assert await cache.get(digest(9)) == entry(9)

    run(test)


def test_a_put_while_the_directory_is_gone_makes_it_anew(home: Path) -> None:
    async def test() -> None:
        async with opened(home, tick_seconds=60) as cache:
            cache.put(entry(1))
            await cache.flush()
            shutil.rmtree(home)
            cache.put(entry(2))
            await until(lambda: records(home))
            assert await cache.get(digest(2)) == entry(2)
            await until(lambda: cache.entries == 1)
            assert cache.degraded is None

    run(test)


def test_a_link_put_in_its_place_is_not_followed(home: Path, tmp_path: Path) -> None:
    async def test() -> None:
        (tmp_path / "elsewhere").mkdir()
        async with opened(home) as cache:
            cache.put(entry(1))
            await cache.flush()
            home.rename(tmp_path / "moved")
            home.symlink_to(tmp_path / "elsewhere")
            cache.put(entry(2))
            await until(lambda: cache.disk is Disk.BROKEN)
            assert await cache.get(digest(2)) == entry(2)
            await cache.flush()
            assert list((tmp_path / "elsewhere").iterdir()) == []
            home.unlink()
            await until(lambda: cache.disk is Disk.READY)

    run(test)


def test_one_record_removed_by_hand_is_a_miss(home: Path) -> None:
    async def test() -> None:
        await fill(home, 1, 2)
        async with opened(home) as cache:
            await cache.flush()
            (home / digest(1).hex()[:2] / digest(1).hex()).unlink()
            assert await cache.get(digest(1)) is None
            assert await cache.get(digest(2)) == entry(2)
            assert cache.entries == 1

    run(test)


def test_limits_and_order(home: Path) -> None:
    async def test() -> None:
        async with opened(home, max_entries=3) as cache:
            for number in range(3):
                cache.put(entry(number))
            assert cache.peek(digest(0))
            cache.put(entry(3))
            assert cache.lru_order() == [digest(number).hex() for number in (2, 0, 3)]
            await cache.flush()
            assert {path.name for path in records(home)} == set(cache.lru_order())
            assert cache.stats()["evicted"] == 1

    run(test)


def test_smaller_limits_hold_after_a_restart(home: Path) -> None:
    async def test() -> None:
        await fill(home, *range(20))
        async with opened(home, max_entries=5) as cache:
            await cache.flush()
            assert cache.lru_order() == [digest(number).hex() for number in range(15, 20)]
            assert len(records(home)) == 5
        async with opened(home, max_bytes=entry(0).size * 2) as cache:
            await cache.flush()
            assert cache.entries == 2
            assert cache.size_bytes <= cache.max_bytes

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
            assert await cache.drop(digest(1))
            assert records(home) == []
            assert not await cache.drop(digest(1))
            cache.put(entry(2))
        async with opened(home) as cache:
            assert await cache.drop(digest(2)) in (True, False), "it may not be indexed yet"
            assert await cache.get(digest(2)) is None
            await cache.flush()
            assert (cache.entries, cache.size_bytes, records(home)) == (0, 0, [])

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


def test_a_second_process_reads_and_takes_over(home: Path) -> None:
    async def test() -> None:
        first = await Cache.open(home, max_entries=10, max_bytes=10**6)
        first.put(entry(1))
        await first.flush()
        async with opened(home) as second:
            assert "another process writes" in str(second.degraded)
            assert await second.get(digest(1)) == entry(1)
            second.put(entry(2))
            assert await second.get(digest(2)) == entry(2)
            await second.flush()
            assert len(records(home)) == 1, "one writer at a time"
            first.put(entry(3))
            await first.flush()
            assert await second.get(digest(3)) == entry(3)
            await first.aclose()
            await until(lambda: second.disk is Disk.READY)
            await second.flush()
            assert second.entries == len(records(home)) == 3
            assert second.degraded is None

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


def test_both_limits_hold_on_disk_at_every_moment(home: Path) -> None:
    """All keys share a folder, so that one call of the system lists every record at one instant."""
    shard, size, most = home / "ab", entry(0).size, [0]
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            names = os.listdir(shard) if shard.exists() else []  # noqa: PTH208 - one call, one instant
            most[0] = max(most[0], len(names))

    async def test() -> None:
        async with opened(home, max_entries=5, max_bytes=size * 4 + 10, memory_bytes=4_000) as cache:
            watcher = threading.Thread(target=watch)
            watcher.start()
            try:
                for number in range(600):
                    cache.put(entry(number, key=b"\xab" + digest(number % 40)[1:]))
                    await cache.get(b"\xab" + digest(number % 7)[1:])
                await cache.flush()
            finally:
                over.set()
                watcher.join()
            assert cache.entries == 4

    run(test)
    assert 3 <= most[0] <= 4


def test_the_loop_never_waits_for_the_disk(home: Path) -> None:
    async def test() -> None:
        async with opened(home, max_entries=3000) as cache:
            for number in range(3000):
                cache.put(entry(number, 100))
            turns, flushing = 0, asyncio.create_task(cache.flush())
            while not flushing.done():
                await asyncio.sleep(0)
                turns += 1
            assert turns > 50
            assert len(records(home)) == 3000

    run(test)


def test_bodies_follow_from_keys() -> None:
    one: Entry = entry(1)
    assert one.body == body_of(one.key, 500)
    assert one.etag == entry(1).etag != entry(2).etag
    with pytest.raises(ValueError, match="32 bytes"):
        entry(1, key=b"short")
