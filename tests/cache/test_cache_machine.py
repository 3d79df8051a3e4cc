"""A model of the cache, a plain ordered dictionary, against the real one on a real directory."""

import asyncio
import os
import shutil
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from llmpod.cache import Cache, Entry
from llmpod.cache.space import capacity
from tests.cache.helpers import digest, disk_bytes, entry, records, segments

numbers = st.integers(0, 9)
sizes = st.sampled_from([0, 1, 400, 700, 1500])
USES_BYTES = 600  # a list of ten uses, and the part of the disk that is kept for tidying


class CacheMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name) / "cache"
        self.model: OrderedDict[bytes, Entry] = OrderedDict()

    @initialize(
        entries=st.sampled_from([1, 3, 6, 10]),
        size=st.sampled_from([1500, 5000, 20_000, 10**6]),
        memory=st.sampled_from([3500, 7000, 10**6]),
    )
    def open(self, entries: int, size: int, memory: int) -> None:
        self.limits: dict[str, Any] = {"max_entries": entries, "max_bytes": size, "memory_bytes": memory}
        self.cache = self.opened()

    def opened(self) -> Cache:
        return self.runner.run(Cache.open(self.home, tick_seconds=0.01, ttl_seconds=None, **self.limits))

    def make_room(self, extra: Entry) -> None:
        limit = capacity(self.limits["max_bytes"])
        while self.model and (
            len(self.model) >= self.limits["max_entries"]
            or sum(known.size for known in self.model.values()) + extra.size > limit
        ):
            self.model.popitem(last=False)

    @rule(number=numbers, size=sizes, has_usage=st.booleans())
    def put(self, number: int, size: int, has_usage: bool) -> None:  # noqa: FBT001 - drawn by name
        new = entry(number, size, has_usage=has_usage)
        older = self.model.get(new.key)
        stored = self.in_loop(lambda: self.cache.put(new))
        if new.size > capacity(self.limits["max_bytes"]) or new.memory > self.limits["memory_bytes"]:
            assert not stored or (older and older.has_usage and not has_usage)
            return
        if not stored:
            assert older
            assert not has_usage
            return
        assert not older or has_usage or not older.has_usage
        self.model.pop(new.key, None)
        self.make_room(new)
        self.model[new.key] = new

    def in_loop(self, call: Any) -> Any:
        async def inside() -> Any:
            return call()

        return self.runner.run(inside())

    @rule(number=numbers)
    def get(self, number: int) -> None:
        found = self.runner.run(self.cache.get(digest(number)))
        assert found == self.model.get(digest(number))
        if found:
            self.model.move_to_end(found.key)

    @rule(number=numbers)
    def peek(self, number: int) -> None:
        found = self.cache.peek(digest(number))
        if found:
            assert found == self.model[found.key]
            self.model.move_to_end(found.key)

    @rule(number=numbers)
    def drop(self, number: int) -> None:
        known = self.runner.run(self.cache.drop(digest(number)))
        assert known is (self.model.pop(digest(number), None) is not None)

    @rule()
    def flush(self) -> None:
        self.runner.run(self.cache.flush())
        on_disk = records(self.home)
        for key, known in self.model.items():
            assert on_disk[key.hex()[:15]] == known.size

    @rule()
    def restart(self) -> None:
        is_full = self.cache.stats()["disk_bytes"] + USES_BYTES > self.limits["max_bytes"]
        self.runner.run(self.cache.aclose())
        self.cache = self.opened()
        self.runner.run(self.cache.flush())
        if is_full:  # then the latest uses may have found no room
            known = {key.hex()[:15]: key for key in self.model}
            order = self.cache.lru_order()
            assert sorted(order) == sorted(known)
            self.model = OrderedDict((known[name], self.model[known[name]]) for name in order)

    @rule()
    def tidy(self) -> None:
        """Time for whatever is done in the background."""
        self.runner.run(asyncio.sleep(0.02))

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "cache"):
            return
        self.settled()
        assert self.cache.lru_order() == [key.hex()[:15] for key in self.model]
        assert self.cache.entries == len(self.model) <= self.limits["max_entries"]
        assert self.cache.size_bytes == sum(known.size for known in self.model.values())
        assert self.cache.size_bytes <= self.limits["max_bytes"]
        assert disk_bytes(self.home) <= self.limits["max_bytes"]
        assert self.cache.stats()["memory_bytes"] <= self.limits["memory_bytes"]

    def settled(self) -> None:
        """The first scan is over: before it, the books are not complete by design."""
        if self.cache.disk.value == "scanning":
            self.runner.run(self.cache.flush())

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.runner.run(self.cache.aclose())
        self.runner.close()
        self.folder.cleanup()


class CrashMachine(RuleBasedStateMachine):
    """Ends without farewell, torn and damaged files: any entry may be gone, none may be another than the last stored.

    Entries of a question are told apart by their size; one that was replaced or dropped must not come back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name) / "cache"
        self.last: dict[int, Entry | None] = {}

    @initialize(size=st.sampled_from([5000, 20_000, 10**6]), memory=st.sampled_from([3500, 10**6]))
    def open(self, size: int, memory: int) -> None:
        self.limits: dict[str, Any] = {"max_entries": 20, "max_bytes": size, "memory_bytes": memory}
        self.reopen()

    def reopen(self) -> None:
        self.cache = self.runner.run(
            Cache.open(self.home, tick_seconds=0.01, ttl_seconds=None, **self.limits)
        )

    @rule(number=numbers, size=sizes)
    def put(self, number: int, size: int) -> None:
        async def put() -> bool:
            return self.cache.put(entry(number, size))

        if self.runner.run(put()):
            self.last[number] = entry(number, size)

    @rule(number=numbers)
    def drop(self, number: int) -> None:
        self.runner.run(self.cache.drop(digest(number)))
        self.last[number] = None

    @rule(number=numbers)
    def get(self, number: int) -> None:
        found = self.runner.run(self.cache.get(digest(number)))
        if found is not None:
            assert found == self.last.get(number)

    @rule()
    def flush(self) -> None:
        self.runner.run(self.cache.flush())

    @rule(torn=st.integers(0, 400))
    def crash(self, torn: int) -> None:
        """Nothing is written any more: what a killed process leaves is a copy of the files at that moment."""
        self.runner.run(self.cache.flush())
        copy = self.home.with_name("copy")
        shutil.copytree(self.home, copy)
        self.runner.run(self.cache.aclose())
        shutil.rmtree(self.home)
        copy.rename(self.home)
        if files := segments(self.home):
            os.truncate(files[-1], max(0, files[-1].stat().st_size - torn))
        self.reopen()

    @rule()
    def restart(self) -> None:
        self.runner.run(self.cache.aclose())
        self.reopen()

    @rule(which=st.integers(0, 99), where=st.integers(0, 10**6), what=st.binary(min_size=1, max_size=8))
    def damage(self, which: int, where: int, what: bytes) -> None:
        """Some bytes of some file change while nobody looks."""
        self.runner.run(self.cache.aclose())
        files = [path for path in sorted(self.home.glob("*")) if path.stat().st_size]
        if files:
            path = files[which % len(files)]
            contents = bytearray(path.read_bytes())
            start = where % len(contents)
            contents[start : start + len(what)] = what
            path.write_bytes(contents)
        self.reopen()

    @invariant()
    def within_limits(self) -> None:
        if hasattr(self, "cache"):
            assert self.cache.entries <= 20
            assert disk_bytes(self.home) <= self.limits["max_bytes"] + 8
            assert self.cache.degraded is None

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.runner.run(self.cache.aclose())
        self.runner.close()
        self.folder.cleanup()


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCacheMachine = CacheMachine.TestCase

CrashMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestCrashMachine = CrashMachine.TestCase
