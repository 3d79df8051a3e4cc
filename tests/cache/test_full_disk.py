"""A disk that takes no more: answers go on being cached in memory, the reason is told, and it heals by itself."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmpod.cache import Cache, Disk
from tests.cache.helpers import ROOT, digest, entry, records, until

LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from llmpod.cache import Cache, Disk
from tests.cache.helpers import digest, entry, records, until

async def main() -> None:
    home = Path(sys.argv[1])
    async with await Cache.open(home, max_entries=100, max_bytes=10**7, tick_seconds=0.02) as cache:
        cache.put(entry(1))
        cache.put(entry(4))
        await cache.flush()
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        cache.put(entry(4, 50_000))
        cache.put(entry(2, 50_000))
        cache.put(entry(3))
        await until(lambda: cache.disk is Disk.BROKEN)
        assert "File too large" in cache.degraded, cache.degraded
        assert await cache.get(digest(2)) == entry(2, 50_000)
        assert await cache.get(digest(1)) == entry(1)
        assert len(records(home)) == 1, "what is replaced goes first: never both at once"
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await until(lambda: cache.degraded is None and not cache.stats()["unsaved"])
        await cache.flush()
        assert len(records(home)) == 4 == cache.entries
        assert not list(home.glob(".tmp-*"))
    async with await Cache.open(home, max_entries=100, max_bytes=10**7) as cache:
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
        async with await Cache.open(home, max_entries=100, max_bytes=10**7, tick_seconds=0.02) as cache:
            await cache.flush()
            ballast.write_bytes(bytes(150_000))
            for number in range(10):
                cache.put(entry(number, 30_000))
            await until(lambda: cache.disk is Disk.BROKEN)
            assert "No space left" in str(cache.degraded)
            for number in range(10):
                assert await cache.get(digest(number)) == entry(number, 30_000)
            assert cache.entries == 10
            ballast.unlink()
            for number in range(4, 10):
                await cache.drop(digest(number))
            await until(lambda: cache.degraded is None and not cache.stats()["unsaved"])
            await cache.flush()
            assert len(records(home)) == 4

    asyncio.run(test())
