"""A cache of many entries: ``python -m tests.cache.million fill|start DIRECTORY ENTRIES``; says what a start took."""

import asyncio
import ctypes
import gc
import json
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmpod.cache import Cache, Disk, Entry
from tests.cache.helpers import CHAT, digest

LIMITS: dict[str, Any] = {"max_entries": 2 * 10**6, "max_bytes": 2**31, "ttl_seconds": None}


def small(number: int) -> Entry:
    body = b'{"answer":%d}' % number
    return Entry(
        digest(number),
        CHAT,
        stream=False,
        content_type="application/json",
        body=body,
        stored_at=1795245173.0,
        model="tiny",
        has_usage=True,
    )


async def fill(home: Path, count: int) -> None:
    async with await Cache.open(home, **LIMITS) as cache:
        await cache.flush()
        for number in range(count):
            cache.put(small(number))
            if number % 2000 == 0:
                await cache.flush()


def rss() -> int:
    """Bytes of memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def settled() -> int:
    """Bytes of memory that are in use, without what the allocator keeps from building it up."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    return rss()


async def start(home: Path, count: int) -> dict[str, float]:
    """Seconds until all is known, longest wait of the loop meanwhile, and memory for each entry."""
    worst, before, began = 0.0, rss(), time.perf_counter()
    cache = await Cache.open(home, **LIMITS)
    opened = time.perf_counter() - began
    last = time.perf_counter()
    while cache.disk is not Disk.READY:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        worst, last = max(worst, now - last), now
    took, at_once = time.perf_counter() - began, rss()
    after = settled()
    entries = cache.entries
    exact = sum([await cache.get(digest(n)) == small(n) for n in range(0, count, max(1, count // 500))])
    for number in range(count, count + 2000):
        cache.put(small(number))
        last = time.perf_counter()
        await asyncio.sleep(0)
        worst = max(worst, time.perf_counter() - last)
    closing = time.perf_counter()
    await cache.aclose()
    return {
        "entries": entries,
        "exact": exact,
        "open_seconds": opened,
        "ready_seconds": took,
        "cpu_seconds": time.process_time(),
        "longest_wait_seconds": worst,
        "close_seconds": time.perf_counter() - closing,
        "bytes_each": (after - before) / max(entries, 1),
        "rss_mib": after / 2**20,
        "ready_mib": at_once / 2**20,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    what, home, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if what == "fill":
        asyncio.run(fill(home, count))
    else:
        sys.stdout.write(json.dumps(asyncio.run(start(home, count))) + "\n")


if __name__ == "__main__":
    main()
