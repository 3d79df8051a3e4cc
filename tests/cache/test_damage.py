"""Files of the cache that are not what was written: no wrong byte is ever served, and nothing ever raised."""

import asyncio
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmpod.cache import Cache, Entry
from llmpod.cache.disk import Store
from llmpod.cache.entry import FRONT, Corrupt, Signer, decode, encode
from llmpod.cache.steps import Spot
from tests.cache.helpers import ROOT, digest, entry, frames_in, opened, records, run, segments

ENTRIES = 40
LIMITS = {"max_entries": 1000, "max_bytes": 400_000}
BAIT = "bait"
SIZES = [number * 97 for number in range(ENTRIES)]


def stored(number: int) -> Entry:
    return entry(number, SIZES[number])


async def write(home: Path) -> None:
    async with opened(home, **LIMITS) as cache:
        await cache.flush()
        for number in range(ENTRIES):
            cache.put(stored(number))
            if number % 3 == 0:
                await cache.get(digest(number // 2))
            if number % 7 == 0:
                await cache.flush()


async def served(home: Path) -> int:
    """How many entries are served, each exactly as it was stored."""
    exact = 0
    async with opened(home, **LIMITS) as cache:
        await cache.flush()
        for number in range(ENTRIES):
            found = await cache.get(digest(number))
            if found is not None:
                assert found == stored(number)
                exact += 1
        assert cache.entries == exact, "what is damaged is forgotten"
        assert cache.degraded is None
    return exact


def regular(home: Path) -> list[Path]:
    """Its files with something in them; never what a link of ours leads to."""
    return [p for p in sorted(home.glob("*")) if not p.is_symlink() and p.is_file() and p.stat().st_size]


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
    end = dice.randrange(start, len(data)) + 1
    data[start:end] = bytes(end - start)
    path.write_bytes(data)


def scatter(path: Path, dice: random.Random) -> None:
    """Random bytes over a few places, as a bad sector leaves them."""
    data = bytearray(path.read_bytes())
    for _ in range(dice.randrange(1, 20)):
        start = dice.randrange(len(data))
        data[start : start + 16] = dice.randbytes(len(data[start : start + 16]))
    path.write_bytes(data)


def other(path: Path, dice: random.Random) -> Path:
    return dice.choice([found for found in regular(path.parent) if found != path] or [path])


def swap(path: Path, dice: random.Random) -> None:
    theirs = other(path, dice)
    mine = path.read_bytes()
    path.write_bytes(theirs.read_bytes())
    theirs.write_bytes(mine)


def splice(path: Path, dice: random.Random) -> None:
    """Goes on as another file does, from any byte or from where a record begins."""
    mine, theirs = path.read_bytes(), other(path, dice).read_bytes()
    here, there = dice.randrange(len(mine)), dice.randrange(len(theirs))
    if dice.random() < 0.5:
        here, there = here & ~7, there & ~7
    path.write_bytes(mine[:here] + theirs[there:])


def move_records(path: Path, dice: random.Random) -> None:
    """Whole records in another order: each is believed only for the question that it was stored for."""
    frames = frames_in(path) if path.suffix == ".seg" else []
    data = path.read_bytes()
    parts = [data[frame.offset : frame.offset + frame.length] for frame in frames]
    dice.shuffle(parts)
    path.write_bytes(b"".join(parts) or data)


def replace_by_link(path: Path, _dice: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.parent.parent / BAIT)


def remove(path: Path, _dice: random.Random) -> None:
    path.unlink()


WAYS: list[Callable[[Path, random.Random], None]] = [
    *(flip, cut, grow, zero, scatter, swap, splice, move_records, replace_by_link, remove)
]


def mutate(template: Path, home: Path, dice: random.Random) -> int:
    """Damages some files of a copy and serves from it twice; how many entries were still there."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(template, home)
    for _ in range(dice.choice([1, 1, 2, 5])):
        files = regular(home)
        victims = [path for path in files if path.suffix == ".seg"] if dice.random() < 0.7 else files
        dice.choice(WAYS)(dice.choice(victims or files), dice)
    exact = asyncio.run(served(home))
    assert asyncio.run(served(home)) == exact, "what was not damaged stays"
    assert (home.parent / BAIT).read_text() == BAIT, "no link was followed"
    return exact


def mutations(tmp_path: Path, count: int, seed: int) -> None:
    dice, exact = random.Random(seed), 0
    (tmp_path / BAIT).write_text(BAIT)
    run(lambda: write(tmp_path / "template"))
    assert len(segments(tmp_path / "template")) > 4
    assert asyncio.run(served(tmp_path / "template")) == ENTRIES
    for _ in range(count):
        exact += mutate(tmp_path / "template", tmp_path / "home", dice)
    assert count * ENTRIES * 0.4 < exact < count * ENTRIES


def test_damaged_files(tmp_path: Path) -> None:
    mutations(tmp_path, 60, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_damaged_directories(tmp_path: Path, seed: int) -> None:
    mutations(tmp_path, 1000, seed=100 + seed)


def test_no_bit_of_a_record_can_change_the_answer() -> None:
    """All bits of one record: it is refused, or, where a bit only frames it, says the same."""
    signer, whole = Signer(bytes(32)), entry(1, 90)
    record, harmless = encode(whole, b'{"model":"tiny"}', signer), 0
    for place in range(len(record) * 8):
        damaged = bytearray(record)
        damaged[place // 8] ^= 1 << place % 8
        try:
            found = decode(bytes(damaged), whole.key, signer)
        except Corrupt:
            assert place // 8 not in range(5, FRONT.size), "the checksum of the frame is for walking only"
            continue
        assert (found, found.request) == (whole, b'{"model":"tiny"}')
        harmless += 1
    assert harmless <= 7 * 8 + 7 * 8 + 8


def test_damage_costs_the_records_it_hits(tmp_path: Path) -> None:
    home = tmp_path / "cache"
    run(lambda: write(home))
    (home / "index").unlink()
    path = segments(home)[2]
    hit = frames_in(path)[1]
    data = bytearray(path.read_bytes())
    data[hit.offset + 20] ^= 1  # a length: where the next one begins must be found out
    path.write_bytes(data)
    assert asyncio.run(served(home)) == ENTRIES - 1


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
            async with await Cache.open(
                home, max_entries=9, max_bytes=10**6, mac_key=mac_key, ttl_seconds=None
            ) as cache:
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


def test_a_link_in_place_of_the_key_is_damage_and_is_not_followed(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    asyncio.run(write(home))
    elsewhere.write_bytes(bytes(32))
    (home / "key").unlink()
    (home / "key").symlink_to(elsewhere)
    assert asyncio.run(served(home)) == 0
    assert elsewhere.read_bytes() == bytes(32)
    asyncio.run(write(home))
    assert asyncio.run(served(home)) == ENTRIES


def test_a_failed_read_that_somebody_still_looks_at_does_not_keep_the_lock(tmp_path: Path) -> None:
    home = tmp_path / "cache"
    asyncio.run(write(home))
    frame = frames_in(segments(home)[0])[0]
    segments(home)[0].write_bytes(bytes(10_000))
    store = Store(home)
    assert store.open()
    with pytest.raises(Corrupt) as caught:
        store.read(Spot(1, frame.offset, frame.length, frame.key))
    assert store.open(), "though the traceback still holds the old handle"
    assert caught.traceback
    store.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from llmpod.cache import Cache
from tests.cache.helpers import entry

async def main() -> None:
    limits = {"max_entries": 25, "max_bytes": 400_000, "memory_bytes": 10**6}
    cache = await Cache.open(Path(sys.argv[1]), ttl_seconds=None, **limits)
    number = int(sys.argv[2])
    while True:
        cache.put(entry(number % 40, (number % 40) * 97))
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
        exact += asyncio.run(served(home))
        assert not list(home.glob(".tmp-*")), "the next start tidies up"
    assert exact > 100
