"""Not a router of paths: one ``/v1`` request from guard to the delivery of its answer.

guard, destination, key; hit: stored bytes; miss: join the call that runs for this question or lead one; the
answer goes to everybody who listens and, when complete, into the cache. What needs no waiting is done within the
call that brought the request; a task is made only for what must be read from the disk or worked out in a thread.
"""

import asyncio
import json
import time
from collections.abc import Coroutine, Iterable

from llmpod.cache import Cache, Entry, RequestKey
from llmpod.cache.key import request_key
from llmpod.errors import Overloaded, UpstreamInvalid
from llmpod.proxy import guard
from llmpod.proxy.answer import Answer
from llmpod.proxy.ask import Ask
from llmpod.proxy.deliver import Delivery
from llmpod.proxy.desk import BIG_BODY, Desk, check_model
from llmpod.proxy.dispatch import Dispatch, Job
from llmpod.proxy.headers import NOSNIFF
from llmpod.proxy.hits import SMALL, Hits, form_of, render, split
from llmpod.proxy.keeper import Keeper
from llmpod.proxy.origin import Origin
from llmpod.proxy.replies import JSON_TYPE
from llmpod.proxy.route import Destination
from llmpod.proxy.wish import NotCached, Wish, wish_of


class Relay:
    """Serves everything under ``/v1/`` that the desk does not."""

    def __init__(self, desk: Desk, hits: Hits, *, cache: Cache, keeper: Keeper, dispatch: Dispatch) -> None:
        self._desk = desk
        self._hits = hits
        self._cache = cache
        self._keeper = keeper
        self._dispatch = dispatch
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, ask: Ask, answer: Answer) -> None:
        """One request. Never raises: whatever happens leaves in OpenAI's shape, or as a cut connection."""
        try:
            self._serve(ask, answer)
        except Exception as error:  # ours, or a bug that must leave as JSON too
            answer.fail(error)

    def interrupt(self, answer: Answer) -> None:
        """The proxy is told to stop and the grace is over."""
        answer.fail(Overloaded("The proxy is being stopped.", retry_after=5))

    def _serve(self, ask: Ask, answer: Answer) -> None:
        guard.check(ask.method, ask.target.partition(b"?")[0], ask.headers, has_body=ask.has_body)
        if ask.method != "POST":
            self._plain(ask, answer)
            return
        destination = self._keeper.destination(self._named_model(ask))
        if ask.key is None and len(ask.body) > BIG_BODY:
            self._later(self._large(ask, destination, answer), answer)
        else:
            self._answer(ask, self._desk.key(ask, destination), destination, answer)

    def _answer(self, ask: Ask, key: RequestKey, destination: Destination, answer: Answer) -> None:
        answer.model = key.model or ""
        wish = wish_of(ask.headers)
        job = Job(ask, destination, key, shared=key.cacheable and wish.store)
        if key.cacheable and wish.read and not self._cache.absent(key.digest):
            self._later(self._from_store(job, wish, answer), answer)
        else:
            self._ask_upstream(job, wish, answer)

    def _named_model(self, ask: Ask) -> str | None:
        """The body's model, where there is more than one to choose from."""
        if len(self._keeper.destinations) < 2:
            return None
        try:
            named = json.loads(ask.body)["model"]
        except (ValueError, RecursionError, KeyError, TypeError):
            return None
        return named if isinstance(named, str) else None

    # --- what takes a while -------------------------------------------------------------------------------
    def _later(self, work: Coroutine[None, None, None], answer: Answer) -> None:
        """Go on in a task, which ends with the answer."""

        async def run() -> None:
            try:
                await work
            except Exception as error:  # as in ``serve``
                answer.fail(error)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        answer.when_over = task.cancel

    async def _large(self, ask: Ask, destination: Destination, answer: Answer) -> None:
        """Many megabytes take long to parse: not on the event loop."""
        ask.key = await asyncio.to_thread(
            request_key,
            ask.target.decode("latin-1"),
            ask.body,
            partition=ask.owner(passes_credentials=destination.passes_credentials),
            identity=destination.identity,
            content_type=ask.content_type,
        )
        check_model(ask, ask.key)
        self._answer(ask, ask.key, destination, answer)

    async def _from_store(self, job: Job, wish: Wish, answer: Answer) -> None:
        entry = await self._hits.find(job.key)
        if entry is not None and wish.accepts(self._hits.age(entry)):
            try:
                rendered = await self._rendered(entry, job.key)
            except UpstreamInvalid:  # stored frames that cannot be put together: ask again
                pass
            else:
                self._hit(entry, rendered, answer)
                return
        self._ask_upstream(job, wish, answer)

    def _hit(self, entry: Entry, rendered: bytes, answer: Answer) -> None:
        answer.cache, answer.reason = "HIT", "stored"
        fields, body = split(rendered)
        answer.start(200, [*fields, (b"age", b"%d" % self._hits.age(entry))])
        answer.write(body)
        answer.finish()

    async def _rendered(self, entry: Entry, key: RequestKey) -> bytes:
        if form_of(key) not in entry.prebuilt and len(entry.body) > SMALL:
            rendered = await asyncio.to_thread(render, entry, key)
            self._hits.remember(entry, key, rendered)
            return rendered
        return self._hits.rendered(entry, key)

    # --- from upstream ------------------------------------------------------------------------------------
    def _plain(self, ask: Ask, answer: Answer) -> None:
        """Everything that is not a POST: forwarded, never stored."""
        destination = self._keeper.destination(None)
        if ask.path == "/v1/models" and ask.method in ("GET", "HEAD") and destination.origin is None:
            answer.whole(200, [JSON_TYPE, NOSNIFF], models(self._keeper.destinations))
            return
        self._fetch(Job(ask, destination), answer)

    def _ask_upstream(self, job: Job, wish: Wish, answer: Answer) -> None:
        if job.shared:
            answer.cache, answer.reason = "MISS", wish.reason or "new"
        else:
            answer.cache, answer.reason = "BYPASS", job.key.reason or wish.reason
        if wish.only_stored:
            raise NotCached("No answer to this request is stored.")
        self._fetch(job, answer)

    def _fetch(self, job: Job, answer: Answer) -> None:
        """Listen to the call that brings the answer; the last one to leave ends it."""
        fill, joined = self._dispatch.take(job, self._origin(job))
        if joined:
            answer.cache, answer.reason = "JOIN", "in flight"
        Delivery(fill, answer, path=job.ask.path, want=job.want).begin()

    def _origin(self, job: Job) -> Origin:
        """Raises ModelNotReady; only a POST wishes for the model: a link or an image must not start anything (T1)."""
        if job.destination.origin is None:
            raise self._keeper.not_ready(job.destination, wished=job.ask.method == "POST")
        return job.destination.origin


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
