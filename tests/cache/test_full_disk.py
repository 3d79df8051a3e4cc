"""A disk that takes no more: answers go on being cached in memory, the reason is told, and it heals by itself."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmpod.cache import Disk
from tests.cache.helpers import ROOT, digest, entry, opened, records, run, until

LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from llmpod.cache import Disk
from tests.cache.helpers import digest, entry, opened, records, until

async def main() -> None:
    home = Path(sys.argv[1])
    async with opened(home, tick_seconds=0.02) as cache:
        cache.put(entry(1))
        cache.put(entry(4))
        await cache.flush()
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        assert cache.put(entry(4, 50_000))
        cache.put(entry(2, 50_000))
        cache.put(entry(3))
        await until(lambda: cache.disk is Disk.BROKEN)
        assert "File too large" in cache.degraded, cache.degraded
        assert await cache.get(digest(2)) == entry(2, 50_000)
        assert await cache.get(digest(1)) == entry(1)
        assert len(records(home)) == 1, "what is replaced is erased all the same"
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await until(lambda: cache.degraded is None and not cache.stats()["unsaved"])
        await cache.flush()
        assert len(records(home)) == 4 == cache.entries
        assert not list(home.glob(".tmp-*"))
    async with opened(home) as cache:
        assert await cache.get(digest(2)) == entry(2, 50_000)

asyncio.run(main())
"""


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    """Works everywhere: the kernel refuses the write half-way (EFBIG), as a full disk would."""
    command = [sys.executable, "-W", "error", "-c", LIMITED, str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "llmpod-test", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.component
def test_a_full_disk(small_disk: Path) -> None:
    async def test() -> None:
        home, ballast = small_disk / "cache", small_disk / "ballast"
        async with opened(home, tick_seconds=0.02) as cache:
            cache.put(entry(50))
            await cache.flush()
            ballast.write_bytes(bytes(120_000))
            for number in range(10):
                cache.put(entry(number, 30_000))
            await until(lambda: cache.disk is Disk.BROKEN)
            for number in range(10):
                assert await cache.get(digest(number)) == entry(number, 30_000)
            assert cache.entries == 11
            assert cache.stats()["unsaved"] > 4
            ballast.unlink()
            for number in range(4, 10):
                await cache.drop(digest(number))
            await until(lambda: cache.degraded is None and not cache.stats()["unsaved"])
            await cache.flush()
            assert len(records(home)) == 5

    run(test)


@pytest.mark.component
def test_a_share_of_the_disk_is_left_to_others(small_disk: Path) -> None:
    """Storing stops before the disk is full; what is stored is still served."""

    async def test() -> None:
        home, ballast = small_disk / "cache", small_disk / "ballast"
        async with opened(home, tick_seconds=0.02, memory_bytes=5000) as cache:
            await cache.flush()
            for number in range(10):
                cache.put(entry(number))
            await cache.flush()
            ballast.write_bytes(bytes(240_000))
            cache.put(entry(20))
            await until(lambda: cache.disk is Disk.BROKEN)
            assert "less than 5% of the disk is free" in str(cache.degraded)
            for number in (20, *range(10)):
                assert await cache.get(digest(number)) == entry(number)
            ballast.unlink()
            await until(lambda: cache.degraded is None)
            await cache.flush()
        async with opened(home) as cache:
            assert await cache.get(digest(3)) == entry(3)

    run(test)
