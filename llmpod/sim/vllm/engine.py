"""Pace, counters and sudden ends. Not the text: scripts come in, their tokens go out when it is time."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from llmpod.sim.vllm.options import VllmOptions
from llmpod.sim.vllm.script import Script, Step


@dataclass(frozen=True, slots=True)
class Said:
    """One token of one choice, or, without a step, the news that the choice was aborted."""

    choice: int
    position: int
    step: Step | None
    finish: str | None = None
    stop_reason: str | None = None


@dataclass
class Timing:
    """A histogram of one bucket: how often, and how many seconds in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds


@dataclass
class Counters:
    """What /metrics tells: numbers since the start, and two gauges of this moment."""

    running: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    first_token: Timing = field(default_factory=Timing)
    whole: Timing = field(default_factory=Timing)


class Engine:
    """Runs scripts, at most `max_num_seqs` requests at a time. Of one event loop."""

    def __init__(self, options: VllmOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._clock = clock
        self._slots = asyncio.Semaphore(options.max_num_seqs)
        self._draining = asyncio.Event()
        self.counters = Counters()

    def drain(self) -> None:
        """Ends what runs, and whatever comes later, with `abort`: what SIGTERM does to a real server."""
        self._draining.set()

    async def run(
        self, scripts: Sequence[Script], *, prompt_tokens: int, abort_after: int | None = None
    ) -> AsyncGenerator[Said, None]:
        """The tokens of all choices side by side, each when it is due.

        `abort_after` is a number of tokens a choice, after which this request alone is aborted.
        """
        counters, unfinished = self.counters, set(range(len(scripts)))
        async with self._slot():
            started = self._clock()
            counters.prompt_tokens += prompt_tokens
            position = 0
            try:
                while unfinished and position != abort_after and not await self._ends(position, started):
                    if position == 0:
                        counters.first_token.add(self._clock() - started)
                    for choice in sorted(unfinished):
                        yield self._counted(_said(scripts[choice], choice, position), unfinished)
                    position += 1
                for choice in sorted(unfinished):
                    yield Said(choice, position, None, "abort")
            finally:
                counters.finished["abort"] += len(unfinished)
                counters.whole.add(self._clock() - started)

    def _counted(self, said: Said, unfinished: set[int]) -> Said:
        self.counters.generated_tokens += 1
        if said.finish:
            unfinished.discard(said.choice)
            self.counters.finished[said.finish] += 1
        return said

    async def _ends(self, position: int, started: float) -> bool:
        """Waits until a token is due. True: the server is going down, there will be none."""
        pace = self._options.tokens_per_second
        moment = started + self._options.first_token_seconds + (position / pace if pace else 0.0)
        if not self._draining.is_set() and (left := moment - self._clock()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), left)
        return self._draining.is_set()

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        counters = self.counters
        counters.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            counters.waiting -= 1
        counters.running += 1
        try:
            yield
        finally:
            counters.running -= 1
            self._slots.release()


def _said(script: Script, choice: int, position: int) -> Said:
    last = position == len(script.steps) - 1
    finish, stop_reason = (script.finish, script.stop_reason) if last else (None, None)
    return Said(choice, position, script.steps[position], finish, stop_reason)
