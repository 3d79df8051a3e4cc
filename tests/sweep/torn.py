"""Not a test: a program that writes files of ours until it is killed, or that kills and judges such programs.

``python -m tests.sweep.torn write KIND DIRECTORY`` stops itself (SIGSTOP) once everything is loaded, so that strace
can be attached; then writes some generations and says after each on standard output which one is safe. ``kill KIND
DIRECTORY COUNT SEED`` forks writers without end, kills each at a random moment and judges what is left; it prints how
many there were, and ends with an error at the first file that is torn.
"""

import asyncio
import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from llmpod.errors import StateError
from llmpod.lifecycle.files import read_json, sweep_temporaries, write_atomic
from tests.cache.helpers import digest, entry, opened

GENERATIONS = 3
LIMITS = {"max_entries": 400, "max_bytes": 600_000, "tick_seconds": 0.01}
Say = Callable[[int], None]


def say_by_writev(number: int) -> None:
    os.writev(1, [b"%d\n" % number])


def say_by_write(number: int) -> None:
    os.write(1, b"%d\n" % number)


def state_file(directory: Path) -> Path:
    return directory / "pod_state.json"


def write_state(directory: Path, numbers: Iterator[int], told: Say) -> None:
    """One generation after the other; what the disk refuses is not said to be safe."""
    for number in numbers:
        try:
            write_atomic(state_file(directory), json.dumps({"n": number, "pad": "x" * 20_000}))
        except StateError:
            continue
        told(number)


async def _write_cache(directory: Path, numbers: Iterator[int], told: Say) -> None:
    async with opened(directory / "cache", **LIMITS) as cache:
        for number in numbers:
            cache.put(entry(number, 500 + number % 7 * 3000))
            if number % 5 == 3:
                await cache.drop(digest(number - 2))
            await cache.flush()
            while cache.stats()["unsaved"]:  # a disk that refused is tried again
                await asyncio.sleep(0.01)
                await cache.flush()
            told(number)


def write_cache(directory: Path, numbers: Iterator[int], told: Say) -> None:
    asyncio.run(_write_cache(directory, numbers, told))


def judge_state(directory: Path, safe: int) -> None:
    """Old or new, never torn: the last one that was said to be safe, or a later one."""
    found = read_json(state_file(directory))
    assert found is None if safe == 0 and found is None else found is not None
    if found is not None:
        assert found["n"] >= safe, (found["n"], safe)
        assert found["pad"] == "x" * 20_000
    sweep_temporaries(directory)
    assert {path.name for path in directory.iterdir()} <= {"pod_state.json"}, "nothing half written is left"


def judge_cache(directory: Path, safe: int) -> None:
    """The last ones that were said to be safe are there; whatever is there is what was stored."""

    async def look() -> None:
        async with opened(directory / "cache", **LIMITS) as cache:
            await cache.flush()
            assert cache.degraded is None
            for number in range(1, safe + 3):
                found = await cache.get(digest(number))
                assert found is None or found == entry(number, 500 + number % 7 * 3000), number
                recent = safe - 10 < number <= safe and number % 5 != 1
                assert found is not None or not recent, (number, safe)

    asyncio.run(look())


WRITE: dict[str, Callable[[Path, Iterator[int], Say], None]] = {"state": write_state, "cache": write_cache}
SAY = {"state": say_by_writev, "cache": say_by_write}  # each by the call that its files are not written with
JUDGE: dict[str, Callable[[Path, int], None]] = {"state": judge_state, "cache": judge_cache}


def write(kind: str, directory: Path) -> None:
    """Some generations, after a first round elsewhere that loads whatever is loaded late."""
    rehearsal = directory / "rehearsal"
    rehearsal.mkdir()
    WRITE[kind](rehearsal, iter(range(1, 6)), lambda _: None)
    (directory / "real").mkdir()
    os.kill(os.getpid(), signal.SIGSTOP)
    WRITE[kind](
        directory / "real", iter(range(1, 1 + GENERATIONS * (3 if kind == "cache" else 1))), SAY[kind]
    )


def _writer(kind: str, directory: Path, first: int) -> tuple[int, int]:
    """A child that writes for ever; its pid and where it says what is safe."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    os.dup2(writer, 1)
    try:
        WRITE[kind](directory, iter(range(first, first + 10**6)), SAY[kind])
    finally:
        os._exit(1)


def kill(kind: str, directory: Path, count: int, seed: int) -> None:
    """Fork, kill, judge, so many times."""
    dice, safe = random.Random(seed), 0
    for _ in range(count):
        pid, told = _writer(kind, directory, safe + 1)
        assert select.select([told], [], [], 30)[0], "the writer says nothing"
        time.sleep(dice.random() * 0.02)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        lines = b""
        while more := os.read(told, 65536):
            lines += more
        os.close(told)
        safe = max(safe, *map(int, lines.split()))
        JUDGE[kind](directory, safe)
    sys.stdout.write(json.dumps({"kills": count, "last": safe}) + "\n")


def main(words: list[str]) -> None:
    what, kind, directory = words[0], words[1], Path(words[2])
    if what == "write":
        write(kind, directory)
    else:
        kill(kind, directory, int(words[3]), int(words[4]))


if __name__ == "__main__":
    main(sys.argv[1:])
