"""What storing costs: ``python -m tests.cache.bench_store [entries]``.

CPU time, not wall time: the machine may be shared.
"""

import asyncio
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from llmpod.cache import Cache, Entry
from tests.cache.helpers import digest, entry

_REQUEST = b'{"messages":[{"content":"a question of usual length","role":"user"}],"model":"tiny"}'


def _entries(count: int) -> list[Entry]:
    return [replace(entry(number, 1024), request=_REQUEST) for number in range(count)]


async def storing(home: Path, count: int, *, max_entries: int) -> tuple[float, float]:
    """Seconds of CPU for each entry: on the event loop's thread, and in all threads."""
    fresh = _entries(count)
    async with await Cache.open(home, max_entries=max_entries, max_bytes=2**30, ttl_seconds=None) as cache:
        await cache.flush()
        loop_started, all_started = time.thread_time(), time.process_time()
        for number, new in enumerate(fresh):
            cache.put(new)
            if number % 20 == 19:
                await asyncio.sleep(0)
        await cache.flush()
        return (time.thread_time() - loop_started) / count, (time.process_time() - all_started) / count


async def reading(home: Path, count: int) -> tuple[float, float]:
    """Seconds of CPU for each hit: from disk, and from memory."""
    keys = [digest(number) for number in range(count)]
    async with await Cache.open(home, max_entries=10**6, max_bytes=2**30, ttl_seconds=None) as cache:
        await cache.flush()
        started = time.process_time()
        for key in keys:
            assert await cache.get(key) is not None
        disk = (time.process_time() - started) / count
        started = time.process_time()
        for _ in range(20):
            for key in keys:
                cache.peek(key)
        return disk, (time.process_time() - started) / count / 20


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    say = sys.stdout.write
    for most in (1000, 10**6):
        with tempfile.TemporaryDirectory() as folder:
            loop, everywhere = asyncio.run(storing(Path(folder) / "cache", count, max_entries=most))
            say(f"put, at most {most} entries: {loop * 1e6:.1f} µs loop, {everywhere * 1e6:.1f} µs in all\n")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "cache"
        asyncio.run(storing(home, 5000, max_entries=10**6))
        disk, memory = asyncio.run(reading(home, 5000))
        say(f"hit: {disk * 1e6:.1f} µs from disk, {memory * 1e6:.2f} µs from memory\n")
    say(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB\n")


if __name__ == "__main__":
    main()
