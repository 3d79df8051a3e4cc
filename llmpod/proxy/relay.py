"""Not a router of paths: one ``/v1`` request from guard to the delivery of its answer.

guard, destination, key; hit: stored bytes; miss: join the call that runs for this question or lead one; the
answer goes to everybody who listens and, when complete, into the cache. What needs no waiting is done within the
call that brought the request; a task is made only for what must be read from the disk or worked out in a thread.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace

from llmpod.cache import Cache, RequestKey
from llmpod.cache.items import EMBEDDINGS
from llmpod.cache.key import request_key
from llmpod.config import ProxySettings
from llmpod.errors import ModelNotReady, ShuttingDown
from llmpod.proxy import guard, models
from llmpod.proxy.answer import Answer
from llmpod.proxy.ask import Ask
from llmpod.proxy.batch import Batches
from llmpod.proxy.deliver import Delivery
from llmpod.proxy.desk import BIG_BODY, Desk, check_model
from llmpod.proxy.dispatch import Dispatch, Job
from llmpod.proxy.headers import NOSNIFF
from llmpod.proxy.hits import Hits
from llmpod.proxy.keepalive import Keepalive
from llmpod.proxy.keeper import Keeper
from llmpod.proxy.limits import Limiter
from llmpod.proxy.loading import Lobby
from llmpod.proxy.origin import Origin
from llmpod.proxy.replies import JSON_TYPE
from llmpod.proxy.route import Destination, choose, own_address
from llmpod.proxy.stored import Hit, Stored
from llmpod.proxy.ways_in import find_way
from llmpod.proxy.wish import ANYTHING, REPLAY_ONLY, Wish, under, wish_of

Turn = Callable[[bytes], bytes]


class Relay:
    """Serves everything under ``/v1/`` that the desk does not."""

    def __init__(
        self,
        settings: ProxySettings,
        desk: Desk,
        hits: Hits,
        *,
        cache: Cache,
        keeper: Keeper,
        dispatch: Dispatch,
        keepalive: Keepalive,
        lobby: Lobby,
        limiter: Limiter,
    ) -> None:
        self._mode = settings.cache_mode
        self._desk = desk
        self._keepalive = keepalive
        self._stored = Stored(hits, pace=settings.cache_pace)
        self._batches = Batches(cache, dispatch.store, desk.policy, desk.journal.clock)
        self._cache = cache
        self._keeper = keeper
        self._dispatch = dispatch
        self._lobby = lobby
        self._limiter = limiter
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, ask: Ask, answer: Answer) -> None:
        """One request. Never raises: whatever happens leaves in OpenAI's shape, or as a cut connection."""
        try:
            self._serve(ask, answer)
        except Exception as error:  # ours, or a bug that must leave as JSON too
            answer.fail(error)

    def interrupt(self, answer: Answer) -> None:
        """The proxy is told to stop and the grace is over."""
        answer.fail(ShuttingDown("The proxy is being stopped.", retry_after=5))

    def _serve(self, ask: Ask, answer: Answer) -> None:
        known = self._keeper.destinations
        if len(known) == 1 and known[0].plain and not own_address(ask.path):
            self._sent_to(known[0], ask, answer)
        elif len(ask.body) > BIG_BODY:
            self._later(self._find_way(ask, answer), answer)
        else:
            ask, destination = find_way(ask, known)
            self._sent_to(destination, ask, answer)

    async def _find_way(self, ask: Ask, answer: Answer) -> None:
        """As ``_large``."""
        ask, destination = await asyncio.to_thread(find_way, ask, self._keeper.destinations)
        self._sent_to(destination, ask, answer)

    def _sent_to(self, destination: Destination, ask: Ask, answer: Answer) -> None:
        if not ask.facts.checked:
            guard.check(ask.method, ask.target.partition(b"?")[0], ask.headers, has_body=ask.has_body)
            ask.facts.checked = True
        if ask.method == "POST" or ask.body:
            self._limiter.admit(answer.ask, destination.model_key, answer.meter)
        if ask.method != "POST":
            self._plain(ask, destination, answer)
        elif ask.key is None and len(ask.body) > BIG_BODY:
            self._later(self._large(ask, destination, answer), answer)
        else:
            self._answer(ask, self._desk.key(ask, destination), destination, answer)

    def _answer(self, ask: Ask, key: RequestKey, destination: Destination, answer: Answer) -> None:
        answer.model = key.model or ""
        facts = ask.facts
        if facts.wish is None:
            facts.wish = under(self._mode, wish_of(ask.headers))
        wish = facts.wish
        job = Job(ask, destination, key, shared=key.cacheable and wish.store)
        may_be_stored = wish.read and not self._cache.absent(key.digest)
        if key.cacheable and (may_be_stored or ask.path == EMBEDDINGS):
            self._later(self._from_store(job, wish, answer), answer)
        else:
            self._ask_upstream(job, wish, answer, "new")

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
            policy=self._desk.policy,
        )
        check_model(ask, ask.key, destination)
        self._answer(ask, ask.key, destination, answer)

    async def _from_store(self, job: Job, wish: Wish, answer: Answer) -> None:
        found = await self._stored.look(job.key, wish)
        if isinstance(found, Hit):
            await self._stored.send(found, job.ask, answer)
            return
        plan = await self._batches.plan(job, wish)
        if plan is None:
            self._ask_upstream(job, wish, answer, found)
        elif plan.job is None:
            answer.cache, answer.reason = "HIT", f"all {plan.inputs} inputs stored"
            body = await asyncio.to_thread(plan.turn, b"")
            answer.whole(200, [JSON_TYPE, NOSNIFF, (b"age", b"%d" % plan.age)], body)
        else:
            reason = f"{plan.stored} of {plan.inputs} inputs stored" if plan.stored else found
            self._ask_upstream(plan.job, wish, answer, reason, turn=plan.turn if plan.stored else None)

    # --- from upstream ------------------------------------------------------------------------------------
    def _plain(self, ask: Ask, destination: Destination, answer: Answer) -> None:
        """Everything that is not a POST: forwarded, never stored."""
        if ask.body and ask.leave.key is not None:
            raise guard.MethodNotAllowed("With a key only a POST may carry a body: what it asks for counts.")
        name = models.names_one(ask.path)
        if ask.method in ("GET", "HEAD") and (ask.path == models.PATH or name is not None):
            alone = answer.ask is not ask  # asked for at its own address
            self._models(ask, name, answer, (destination,) if alone else self._keeper.destinations)
        elif self._mode == REPLAY_ONLY:
            raise under(self._mode, ANYTHING).not_cached()
        elif destination.bills_requests:
            raise guard.MethodNotAllowed("A serverless endpoint gets only POST: any request starts a worker.")
        else:
            self._fetch(Job(ask, destination), answer)

    def _models(
        self, ask: Ask, name: str | None, answer: Answer, destinations: tuple[Destination, ...]
    ) -> None:
        """The list of models or one of it; vLLM itself has only the list."""
        now = time.time()

        def from_server(body: bytes) -> bytes:
            return one(models.merged(body, destinations, now=now))

        def from_us() -> bytes:
            return one(models.listed(destinations, now=now))

        def one(listing: bytes) -> bytes:
            return listing if name is None else models.picked(listing, name)

        destination = choose(destinations, name) or destinations[0]
        if destination.origin is None or destination.bills_requests or self._mode == REPLAY_ONLY:
            answer.whole(200, [JSON_TYPE, NOSNIFF], from_us())
            return
        listing_ask = replace(ask, path=models.PATH, target=models.PATH.encode())
        known = any(d.names for d in destinations)  # of a fixed endpoint we know nothing ourselves
        job = Job(listing_ask, destination)
        self._fetch(job, answer, turn=from_server, instead=from_us if known else None)

    def _ask_upstream(
        self, job: Job, wish: Wish, answer: Answer, reason: str, *, turn: Turn | None = None
    ) -> None:
        if job.shared:
            answer.cache, answer.reason = "MISS", wish.reason or reason
        else:
            answer.cache, answer.reason = "BYPASS", job.key.reason or wish.reason
        if wish.only_stored:
            raise wish.not_cached()
        self._fetch(job, answer, turn=turn)

    def _fetch(
        self,
        job: Job,
        answer: Answer,
        *,
        turn: Turn | None = None,
        instead: Callable[[], bytes] | None = None,
    ) -> None:
        """Have the answer brought; where its model must be started first, wait for that."""
        if self._lobby.is_for(job):

            def go() -> None:
                self._listen(job, answer, turn=turn, instead=instead)

            self._lobby.enter(job, answer, go, whole=turn is not None)
        elif self._keeper.follows and self._now(job.destination).origin is None:
            self._later(self._after_a_look(job, answer, turn=turn, instead=instead), answer)
        else:
            self._listen(job, answer, turn=turn, instead=instead)

    async def _after_a_look(
        self, job: Job, answer: Answer, *, turn: Turn | None, instead: Callable[[], bytes] | None
    ) -> None:
        """Before somebody is refused: the manager may have said a moment ago that the model is ready."""
        await self._keeper.look()
        self._listen(job, answer, turn=turn, instead=instead)

    def _listen(
        self, job: Job, answer: Answer, *, turn: Turn | None, instead: Callable[[], bytes] | None
    ) -> None:
        """Listen to the call that brings the answer; the last one to leave ends it."""
        shared, origin = job.shared, self._origin(job)
        if turn is not None and job.shared != shared:  # a part of the answer is what the former model said
            raise ModelNotReady("The model was changed meanwhile.", hint="Ask again.", retry_after=1)
        if answer.meter is not None:
            answer.meter.begin(job.destination, answer.model)
        fill, joined = self._dispatch.take(job, origin)
        if joined:
            answer.cache, answer.reason = "JOIN", "in flight" if job.shared else "asked again"
        keepalive = self._keepalive
        Delivery(
            fill, answer, job.ask, want=job.want, keepalive=keepalive, turn=turn, instead=instead
        ).begin()

    def _origin(self, job: Job) -> Origin:
        """Where its model is by now: since it was found, settings and machines may have changed.

        What another model will answer under the same name is not stored under the key of the former one. For a model
        that starts with requests only the lobby wishes, which knows who may: no warm-up does.

        Raises:
            NoSuchModel: it was removed.
            ModelNotReady: only a POST wishes for the model; a link or an image must not start anything (T1).
        """
        found, job.destination = job.destination, self._now(job.destination)
        job.shared = job.shared and job.destination.identity == found.identity
        if job.destination.bills_requests and self._lobby.is_ours(job):
            raise ModelNotReady("A worker that is billed is not started to warm up.")
        if job.destination.origin is None:
            managed = self._lobby.demand.manages(job.destination.model_key)
            raise self._keeper.not_ready(job.destination, wished=job.ask.method == "POST" and not managed)
        return job.destination.origin

    def _now(self, destination: Destination) -> Destination:
        now = self._keeper.by_key(destination.model_key)
        if now is None:
            raise models.NoSuchModel(f"{destination.model_key} was removed from the configuration.")
        return now
