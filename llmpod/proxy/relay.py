"""Not a router of paths: one ``/v1`` request from guard to last byte. Plain ASGI, needs the edge's line.

guard, destination, key; hit: stored bytes; miss: join the call that runs for this question or lead one; the
answer goes to everybody who listens and, when complete, into the cache.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, MutableMapping
from time import perf_counter
from typing import Any

from llmpod.cache import Entry, RequestKey
from llmpod.cache.key import request_key
from llmpod.errors import LlmpodError, Overloaded, UpstreamInvalid
from llmpod.observe import Journal, Seen
from llmpod.proxy import ask as asking
from llmpod.proxy.answer import Answer, Send
from llmpod.proxy.ask import Ask, Gone, Receive
from llmpod.proxy.deliver import deliver
from llmpod.proxy.desk import BIG_BODY, Desk
from llmpod.proxy.dispatch import Dispatch, Job
from llmpod.proxy.headers import NOSNIFF
from llmpod.proxy.hits import SMALL, Hits, form_of, render, split
from llmpod.proxy.keeper import Keeper
from llmpod.proxy.line import LINE
from llmpod.proxy.origin import Origin
from llmpod.proxy.replies import JSON_TYPE
from llmpod.proxy.route import Destination
from llmpod.proxy.wish import NotCached, Wish, wish_of


class Relay:
    """Serves everything under ``/v1/``."""

    def __init__(
        self, desk: Desk, hits: Hits, *, keeper: Keeper, dispatch: Dispatch, journal: Journal
    ) -> None:
        self._desk = desk
        self._hits = hits
        self._keeper = keeper
        self._dispatch = dispatch
        self._journal = journal

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request. Never raises: whatever happens leaves in OpenAI's shape, or as a cut connection."""
        answer = Answer(send, scope["extensions"][LINE])
        started = perf_counter()
        model = ""
        try:
            ask = await asking.read(scope, receive, max_body_bytes=self._desk.max_body_bytes)
            started = perf_counter()
            model = await self._serve(ask, answer)
        except Gone:
            answer.status = 499
        except LlmpodError as error:
            await answer.fail(error)
        except asyncio.CancelledError:
            await self._interrupted(answer)
        except Exception as error:  # a bug of ours must leave as JSON, and with a trace in our log
            self._journal.bug(error)
            await answer.fail(LlmpodError("Something in the proxy went wrong.", hint="Its log says more."))
        self._note(scope, answer, started, model=model)

    async def _interrupted(self, answer: Answer) -> None:
        """The client left, or the proxy is told to stop and the grace is over."""
        if answer.line.gone:
            self._journal.metrics.client_gone += 1
            answer.status = answer.status or 499
            return
        await answer.fail(Overloaded("The proxy is being stopped.", retry_after=5))

    def _note(self, scope: MutableMapping[str, Any], answer: Answer, started: float, *, model: str) -> None:
        client = scope["client"]
        self._journal.add(
            Seen(
                at=self._journal.clock(),
                method=scope["method"],
                path=scope["raw_path"].decode("latin-1"),
                status=answer.status or 499,
                cache=answer.cache,
                reason=answer.reason,
                seconds=perf_counter() - started,
                bytes=answer.bytes,
                model=model,
                client=client[0] if client else "",
            )
        )

    async def _serve(self, ask: Ask, answer: Answer) -> str:
        """Answer it; returns the model's name for the journal."""
        if ask.method != "POST":
            await self._plain(ask, answer)
            return ""
        destination = self._keeper.destination(self._named_model(ask))
        key = await self._key(ask, destination)
        wish = wish_of(ask.headers)
        if key.cacheable and wish.read and await self._hit(key, wish, answer):
            return key.model or ""
        shared = key.cacheable and wish.store
        answer.cache, answer.reason = (
            ("MISS", wish.reason or "new") if shared else ("BYPASS", key.reason or wish.reason)
        )
        if wish.only_stored:
            raise NotCached("No answer to this request is stored.")
        job = Job(ask, destination, self._origin(destination), key, shared=shared)
        await self._fetch(job, answer)
        return key.model or ""

    def _named_model(self, ask: Ask) -> str | None:
        """The body's model, where there is more than one to choose from."""
        if len(self._keeper.destinations) < 2:
            return None
        try:
            named = json.loads(ask.body)["model"]
        except (ValueError, RecursionError, KeyError, TypeError):
            return None
        return named if isinstance(named, str) else None

    # --- from the cache -----------------------------------------------------------------------------------
    async def _key(self, ask: Ask, destination: Destination) -> RequestKey:
        path, body, content_type = ask.target.decode("latin-1"), ask.body, ask.content_type
        partition = asking.partition(ask.headers) if destination.passes_credentials else b""

        def named(by: Callable[..., RequestKey]) -> RequestKey:
            identity = destination.identity
            return by(path, body, partition=partition, identity=identity, content_type=content_type)

        if len(body) > BIG_BODY:  # many megabytes take long to parse: not on the event loop
            return await asyncio.to_thread(named, request_key)
        return named(self._desk.aliases.lookup)

    async def _hit(self, key: RequestKey, wish: Wish, answer: Answer) -> bool:
        entry = await self._hits.find(key)
        if entry is None or not wish.accepts(self._hits.age(entry)):
            return False
        try:
            rendered = await self._rendered(entry, key)
        except UpstreamInvalid:  # stored frames that cannot be put together: ask again
            return False
        answer.cache, answer.reason = "HIT", "stored"
        fields, body = split(rendered)
        await answer.start(200, [*fields, (b"age", b"%d" % self._hits.age(entry))])
        await answer.finish(body)
        return True

    async def _rendered(self, entry: Entry, key: RequestKey) -> bytes:
        if form_of(key) not in entry.prebuilt and len(entry.body) > SMALL:
            rendered = await asyncio.to_thread(render, entry, key)
            self._hits.remember(entry, key, rendered)
            return rendered
        return self._hits.rendered(entry, key)

    # --- from upstream ------------------------------------------------------------------------------------
    async def _plain(self, ask: Ask, answer: Answer) -> None:
        """Everything that is not a POST: forwarded, never stored."""
        destination = self._keeper.destination(None)
        if ask.path == "/v1/models" and ask.method in ("GET", "HEAD") and destination.origin is None:
            await answer.whole(200, [JSON_TYPE, NOSNIFF], models(self._keeper.destinations))
            return
        await self._fetch(Job(ask, destination, self._origin(destination)), answer)

    async def _fetch(self, job: Job, answer: Answer) -> None:
        """Listen to the call that brings the answer; the last one to leave ends it."""
        fill, joined = self._dispatch.take(job)
        if joined:
            answer.cache, answer.reason = "JOIN", "in flight"
        listener = fill.flight.follow()
        task = asyncio.current_task()
        assert task is not None
        try:
            answer.line.when_gone(task.cancel)
            await deliver(fill, listener, answer, path=job.ask.path, want=job.want)
        finally:
            answer.line.when_gone(_nothing)
            listener.close()
            fill.listener_left()

    def _origin(self, destination: Destination) -> Origin:
        if destination.origin is None:
            raise self._keeper.not_ready(destination)
        return destination.origin


def _nothing() -> None:
    """What to do about a client that leaves when its answer needs no more work."""


def models(destinations: Iterable[Destination]) -> bytes:
    """``GET /v1/models`` while nothing runs: what would answer if it did."""
    entries = [
        {
            "id": destination.names[0],
            "object": "model",
            "created": int(destination.created_at or time.time()),
            "owned_by": "llmpod",
            "root": destination.identity,
            "status": str(destination.phase or "unknown"),
        }
        for destination in destinations
        if destination.names
    ]
    return json.dumps({"object": "list", "data": entries}).encode()
