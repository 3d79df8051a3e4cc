"""A model of the cache, a plain ordered dictionary, against the real one on a real directory."""

import asyncio
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from llmpod.cache import Cache, Entry
from tests.cache.helpers import digest, entry, records

numbers = st.integers(0, 9)
sizes = st.sampled_from([0, 1, 400, 700, 1500])


class CacheMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name) / "cache"
        self.model: OrderedDict[bytes, Entry] = OrderedDict()

    @initialize(
        entries=st.integers(1, 6),
        size=st.sampled_from([1200, 4000, 20_000]),
        memory=st.sampled_from([3000, 6500, 10**6]),
    )
    def open(self, entries: int, size: int, memory: int) -> None:
        self.limits: dict[str, Any] = {"max_entries": entries, "max_bytes": size, "memory_bytes": memory}
        self.cache = self.opened()

    def opened(self) -> Cache:
        return self.runner.run(Cache.open(self.home, tick_seconds=0.01, **self.limits))

    def make_room(self, extra: Entry) -> None:
        limit = self.limits["max_bytes"]
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
        if new.size > self.limits["max_bytes"] or new.memory > self.limits["memory_bytes"]:
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
        assert {path.name for path in records(self.home)} == {key.hex() for key in self.model}
        assert sum(path.stat().st_size for path in records(self.home)) == self.cache.size_bytes

    @rule()
    def restart(self) -> None:
        self.runner.run(self.cache.aclose())
        self.cache = self.opened()
        self.runner.run(self.cache.flush())

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "cache"):
            return
        self.settled()
        assert self.cache.lru_order() == [key.hex() for key in self.model]
        assert self.cache.entries == len(self.model) <= self.limits["max_entries"]
        assert self.cache.size_bytes == sum(known.size for known in self.model.values())
        assert self.cache.size_bytes <= self.limits["max_bytes"]
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


CacheMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestCacheMachine = CacheMachine.TestCase
