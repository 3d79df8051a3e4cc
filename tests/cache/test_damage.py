"""Files of the cache that are not what was written: no wrong byte is ever served."""

import asyncio
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmpod.cache import Cache
from llmpod.cache.disk import Store
from llmpod.cache.entry import Corrupt
from tests.cache.helpers import ROOT, digest, entry, records

ENTRIES = 40


async def write(home: Path) -> None:
    async with await Cache.open(home, max_entries=1000, max_bytes=10**8) as cache:
        for number in range(ENTRIES):
            cache.put(entry(number, number * 7))


async def served(home: Path) -> int:
    """How many entries are served, each exactly as it was stored."""
    exact = 0
    async with await Cache.open(home, max_entries=1000, max_bytes=10**8) as cache:
        await cache.flush()
        for number in range(ENTRIES):
            found = await cache.get(digest(number))
            if found is not None:
                assert found == entry(number, number * 7)
                exact += 1
        await cache.flush()
        assert cache.entries == len(records(home)) == exact, "what is damaged is removed"
    return exact


def flip(path: Path, dice: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def cut(path: Path, dice: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: dice.randrange(path.stat().st_size)])


def grow(path: Path, dice: random.Random) -> None:
    path.write_bytes(path.read_bytes() + dice.randbytes(dice.randrange(1, 100)))


def zero(path: Path, dice: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = dice.randrange(len(data))
    data[start:] = bytes(len(data) - start)
    path.write_bytes(data if any(path.read_bytes()[start:]) else b"")


def swap(path: Path, dice: random.Random) -> None:
    other = dice.choice([record for record in records(path.parent.parent) if record != path])
    path.write_bytes(other.read_bytes())


def splice(path: Path, dice: random.Random) -> None:
    other = dice.choice([record for record in records(path.parent.parent) if record != path])
    half = dice.randrange(1, path.stat().st_size)
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(mine[:half] + theirs[half:] if mine[:half] + theirs[half:] != mine else b"")


def replace_by_link(path: Path, _dice: random.Random) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


WAYS: list[Callable[[Path, random.Random], None]] = [flip, cut, grow, zero, swap, splice, replace_by_link]


@pytest.mark.parametrize("seed", range(8))
def test_damaged_records_are_misses_and_removed(tmp_path: Path, seed: int) -> None:
    home, dice = tmp_path / "cache", random.Random(seed)
    asyncio.run(write(home))
    damaged = dice.sample(records(home), 30)
    for path in damaged:
        dice.choice(WAYS)(path, dice)
    assert asyncio.run(served(home)) == ENTRIES - len(damaged)
    assert asyncio.run(served(home)) == ENTRIES - len(damaged)


def test_records_of_another_cache_are_not_believed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        asyncio.run(write(tmp_path / name))
    shutil.copytree(
        tmp_path / "one", tmp_path / "two", dirs_exist_ok=True, ignore=shutil.ignore_patterns("key")
    )
    assert asyncio.run(served(tmp_path / "two")) == 0


def test_a_key_that_is_handed_in_stays_out_of_the_directory(tmp_path: Path) -> None:
    async def test() -> None:
        home = tmp_path / "cache"
        for mac_key, expected in ((bytes(32), True), (bytes(32), True), (b"1" * 32, False)):
            async with await Cache.open(home, max_entries=9, max_bytes=10**6, mac_key=mac_key) as cache:
                assert (await cache.get(digest(1)) is not None) is (expected and bool(records(home)))
                cache.put(entry(1))
        assert not (home / "key").exists()

    asyncio.run(test())


def test_a_damaged_key_costs_the_cache_and_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "cache"
    asyncio.run(write(home))
    (home / "key").write_bytes(b"short")
    assert asyncio.run(served(home)) == 0
    asyncio.run(write(home))
    assert asyncio.run(served(home)) == ENTRIES


def test_a_failed_read_that_somebody_still_looks_at_does_not_keep_the_lock(tmp_path: Path) -> None:
    home = tmp_path / "cache"
    asyncio.run(write(home))
    records(home)[0].write_bytes(b"damaged")
    store = Store(home, entry_limit=10**6)
    assert store.open()
    with pytest.raises(Corrupt) as caught:
        store.read(bytes.fromhex(records(home)[0].name))
    assert store.open(), "though the traceback still holds the old handle"
    assert caught.traceback
    store.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from llmpod.cache import Cache
from tests.cache.helpers import entry

async def main() -> None:
    cache = await Cache.open(Path(sys.argv[1]), max_entries=25, max_bytes=10**7, memory_bytes=10**6)
    number = int(sys.argv[2])
    while True:
        cache.put(entry(number % 40, (number % 40) * 7))
        number += 1
        if number % 3 == 0:
            await cache.flush()
        sys.stdout.write(".")
        sys.stdout.flush()

asyncio.run(main())
"""


def test_a_writer_that_is_killed_at_any_moment_leaves_nothing_wrong(tmp_path: Path) -> None:
    home, dice, exact = tmp_path / "cache", random.Random(1), 0
    for round_number in range(12):
        command = [sys.executable, "-c", WRITER, str(home), str(round_number * 13)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
            assert writer.stdout
            writer.stdout.read(dice.randrange(1, 400))
            writer.send_signal(signal.SIGKILL)
        left = len(records(home))
        assert left <= 25
        assert asyncio.run(served(home)) == left, "a record is whole or not there"
        exact += left
        assert not list(home.glob(".tmp-*")), "the next start tidies up"
    assert exact > 100
