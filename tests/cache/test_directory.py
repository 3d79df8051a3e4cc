# ruff: noqa: ASYNC240 - these tests have the loop to themselves, and files are what they are about
"""Directories that are not as expected: foreign, shared, linked, removed."""

import asyncio
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from llmpod.cache import Cache, Disk
from tests.cache.helpers import digest, entry, fill, opened, records, run, segments, short, until


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
    theirs = ("notes.txt", "1.seg", "ab", "00/notes", "00/" + "0" * 63, "00/" + "f" * 64)
    for name in theirs:
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text("mine")
    run(lambda: fill(home, 1))
    assert home.stat().st_mode & 0o777 == 0o755
    assert all((home / name).read_text() == "mine" for name in theirs)


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


def test_one_segment_removed_by_hand_is_a_miss(home: Path) -> None:
    async def test() -> None:
        await fill(home, 1)
        await fill(home, 2)
        async with opened(home) as cache:
            await cache.flush()
            segments(home)[0].unlink()
            assert await cache.get(digest(1)) is None
            assert await cache.get(digest(2)) == entry(2)
            assert cache.entries == 1
            cache.put(entry(1))
        async with opened(home) as cache:
            assert await cache.get(digest(1)) == entry(1)

    run(test)


@pytest.mark.parametrize("others", ["none", "a file that is not ours"])
def test_what_older_versions_left_is_removed(home: Path, others: str) -> None:
    """One file for each entry, in 256 folders: no longer read, and no longer in the way of the limit."""
    for number in range(600):
        old = home / "ab" / ("ab" + digest(number).hex()[2:])
        old.parent.mkdir(parents=True, exist_ok=True)
        old.write_bytes(bytes(100))
    if others != "none":
        (home / "ab" / "notes").write_text("mine")
    run(lambda: fill(home, 1))
    left = {path.name for path in home.rglob("*")}
    assert left == {"key", "index", segments(home)[0].name} | ({"ab", "notes"} if others != "none" else set())


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
            second.put(entry(1, 200))
            assert await second.get(digest(1)) == entry(1, 200)
            await second.flush()
            assert records(home) == {short(1): entry(1).size}, "what the writer stored stays as it is"
            first.put(entry(4))
            await first.flush()
            assert await second.drop(digest(4)) in (True, False), "it may not have been seen yet"
            assert len(records(home)) == 1, "but anybody may have it removed"
            await first.drop(digest(4))
            first.put(entry(3))
            await first.flush()
            assert await second.get(digest(3)) == entry(3)
            await first.aclose()
            await until(lambda: second.disk is Disk.READY)
            await second.flush()
            assert second.entries == len(records(home)) == 3
            assert second.degraded is None

    run(test)


@pytest.mark.parametrize("moment", range(10))
def test_a_reader_forgets_with_the_directory(home: Path, moment: int) -> None:
    """Whenever in the reader's round the directory goes, also between its look and its next opening."""

    async def test() -> None:
        async with opened(home) as first, opened(home) as second:
            first.put(entry(1))
            await first.flush()
            assert await second.get(digest(1)) == entry(1)
            await asyncio.sleep(moment * 0.005)  # another moment of the round of 0.05 s
            shutil.rmtree(home)
            await until(lambda: first.entries == second.entries == 0)
            await until(lambda: {first.disk, second.disk} == {Disk.READY, Disk.SHARED})
            assert await second.get(digest(1)) is None

    run(test)


def test_a_directory_that_another_process_is_setting_up(home: Path) -> None:
    async def test() -> None:
        home.mkdir(parents=True, mode=0o700)
        handle = os.open(home, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        async with opened(home) as cache:
            assert "another process is setting it up" in str(cache.degraded)
            os.close(handle)
            await until(lambda: cache.disk is Disk.READY)

    run(test)
