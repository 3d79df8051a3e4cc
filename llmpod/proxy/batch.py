"""Not a client of the model server: embeddings of many inputs, of which only those are asked for that are not stored.

Each input of a batch has an entry of its own, beside the one of the whole batch. A batch so large that its inputs
would push most else out of the cache is stored as a whole only.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from llmpod.cache import Cache, Entry, RequestKey
from llmpod.cache.items import EMBEDDINGS, Batch, batch_of, put_together, taken_apart
from llmpod.cache.key import request_key
from llmpod.cache.policy import KeyPolicy
from llmpod.errors import UpstreamInvalid
from llmpod.proxy.ask import Ask
from llmpod.proxy.dispatch import Job
from llmpod.proxy.wish import Wish

SHARE: Final = 8  # a batch may take up one in so many entries of the cache
SMALL: Final = 65536  # bodies up to this size are read on the event loop
FEW: Final = 64  # and so many keys made there, about 10 µs each
Put = Callable[[Entry], object]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a batch is answered.

    Args:
        job: asks the model server for what is missing; None where nothing is.
        turn: makes the answer to the whole batch out of the answer to that.
        age: of the oldest stored part, in seconds.
        stored: how many of the inputs are stored.
        inputs: how many there are.
    """

    job: Job | None
    turn: Callable[[bytes], bytes]
    age: float
    stored: int
    inputs: int


class Batches:
    """Plans for batches of embeddings.

    Args:
        cache: where the parts are.
        put: stores an entry.
        policy: as for all keys.
        clock: seconds since the epoch.
    """

    def __init__(self, cache: Cache, put: Put, policy: KeyPolicy, clock: Callable[[], float]) -> None:
        self._cache = cache
        self._put = put
        self._policy = policy
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    async def plan(self, job: Job, wish: Wish) -> Plan | None:
        """What to do for this request; None where it is no such batch."""
        ask = job.ask
        if ask.target != EMBEDDINGS.encode() or not job.shared:
            return None
        small = len(ask.body) <= SMALL
        batch = batch_of(ask.body) if small else await asyncio.to_thread(batch_of, ask.body)
        if batch is None or len(batch.inputs) * SHARE > self._cache.max_entries:
            return None
        few = small and len(batch.inputs) <= FEW
        keys = self._keys(job, batch) if few else await asyncio.to_thread(self._keys, job, batch)
        parts = [await self._part(key, wish) for key in keys]
        if any(parts):
            parts = await asyncio.to_thread(_sound, parts, batch.inputs)
        missing = [place for place, part in enumerate(parts) if part is None]
        asked = [batch.inputs[place] for place in missing]
        ages = [self._clock() - part.stored_at for part in parts if part is not None]
        return Plan(
            job=self._missing(job, batch, keys, missing) if missing else None,
            turn=partial(self._turned, job, parts, asked),
            age=max([0.0, *ages]),
            stored=len(ages),
            inputs=len(parts),
        )

    def _keys(self, job: Job, batch: Batch) -> list[RequestKey]:
        return [self._key(job, batch.only([item])) for item in batch.inputs]

    def _key(self, job: Job, body: bytes) -> RequestKey:
        return request_key(
            EMBEDDINGS,
            body,
            partition=job.ask.owner(passes_credentials=job.destination.passes_credentials),
            identity=job.destination.identity,
            policy=self._policy,
        )

    async def _part(self, key: RequestKey, wish: Wish) -> Entry | None:
        entry = await self._cache.get(key.digest) if wish.read else None
        usable = entry is not None and wish.accepts(max(0.0, self._clock() - entry.stored_at))
        return entry if usable else None

    def _missing(self, job: Job, batch: Batch, keys: list[RequestKey], missing: list[int]) -> Job:
        """The request for what is not stored: as it came where that is all of it."""
        inputs = [batch.inputs[place] for place in missing]
        keep = partial(self._keep, [keys[place] for place in missing], inputs)
        if len(missing) == len(keys):
            return replace(job, keep=partial(self._keep_all, keep))
        body = batch.only(inputs)
        key = self._key(job, body)
        ask: Ask = replace(job.ask, body=body, key=key)
        return replace(job, ask=ask, key=key, keep=keep)

    def _keep_all(self, keep: Put, entry: Entry) -> None:
        keep(entry)
        self._put(entry)

    def _keep(self, keys: Sequence[RequestKey], inputs: Sequence[object], entry: Entry) -> None:
        """An entry for each input of an answer."""
        for key, answer in zip(keys, taken_apart(entry.body, inputs) or (), strict=False):
            self._put(entry.answering(key.digest, answer, key.question))

    def _turned(self, job: Job, parts: Sequence[Entry | None], asked: Sequence[Any], body: bytes) -> bytes:
        """The answer to the whole batch; ``body`` answers what was asked for. In any thread."""
        fresh = iter(taken_apart(body, asked) or () if asked else ())
        bodies = [part.body if part is not None else next(fresh, b"") for part in parts]
        if not all(bodies):
            raise UpstreamInvalid(
                "The model server's answer does not say which vector belongs to which input."
            )
        whole = put_together(bodies, like=body if asked else bodies[0])
        self._store(job, parts, whole)
        return whole

    def _store(self, job: Job, parts: Sequence[Entry | None], whole: bytes) -> None:
        """The whole as an entry, as old as its oldest part: the same batch is one look-up next time."""
        known = [part for part in parts if part is not None]
        oldest = min(known, key=lambda part: part.stored_at)
        entry = oldest.answering(job.key.digest, whole, job.key.question)
        self._loop.call_soon_threadsafe(self._put, entry)


def _sound(parts: Sequence[Entry | None], inputs: Sequence[Any]) -> list[Entry | None]:
    """Without those that cannot be put together: what was asked for alone was stored in whatever shape it came."""
    pairs = zip(parts, inputs, strict=True)
    return [part if part and taken_apart(part.body, [item]) else None for part, item in pairs]
