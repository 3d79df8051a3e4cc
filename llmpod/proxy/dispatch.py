"""Not an answer to anybody: which upstream call a request gets, its own or one that runs for the same question."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Final

from llmpod.cache import Cache, Entry, Flight, Flights, RequestKey, question_of
from llmpod.cache.jsontext import compact
from llmpod.cache.paths import converts, counts_on_request
from llmpod.config import ProxySettings
from llmpod.observe import Journal
from llmpod.proxy.ask import Ask, key_policy, partition
from llmpod.proxy.desk import BIG_BODY
from llmpod.proxy.fill import Fill, Form
from llmpod.proxy.headers import Headers, get, to_upstream
from llmpod.proxy.keeper import Keeper, Use
from llmpod.proxy.origin import Origin, Request
from llmpod.proxy.pacer import Pacer
from llmpod.proxy.prewarm import Warmth
from llmpod.proxy.route import Destination, counts_upstream, streams_upstream
from llmpod.proxy.wish import RECORD

PRIVATE_BUFFER: Final = 256 * 2**10  # of an answer that nobody else may share: evens out two speeds, no more
_USAGE: Final = (b"\0", b"\1")
_ANSWERS: Final = "/v1/responses/"
AS_SENT: Final = RequestKey(digest=b"", stream=True, include_usage=True)


@dataclass(slots=True)
class Job:
    """A request that needs the model server.

    ``shared``: its answer may be stored and given to others. ``keep`` stores it otherwise than as one entry. ``want``
    is the form that the client asked for.
    """

    ask: Ask
    destination: Destination
    key: RequestKey = AS_SENT
    shared: bool = False
    keep: Callable[[Entry], object] | None = None
    want: Form = field(init=False)

    def __post_init__(self) -> None:
        key = self.key
        counted = key.include_usage or not key.stream or not counts_on_request(self.ask.path)
        self.want = Form(key.stream, counted)


class Dispatch:
    """Starts upstream calls and knows which of them may be joined."""

    def __init__(
        self,
        settings: ProxySettings,
        *,
        cache: Cache,
        keeper: Keeper,
        pacer: Pacer,
        journal: Journal,
        warmth: Warmth,
    ) -> None:
        self._cache = cache
        self._keeper = keeper
        self._pacer = pacer
        self._journal = journal
        self._warmth = warmth
        self._flights = Flights()
        self._fills: dict[bytes, Fill] = {}
        self.adopt(settings)

    def adopt(self, settings: ProxySettings) -> None:
        """Go by these settings, for the calls that come."""
        self._settings = settings
        self._policy = key_policy(settings)
        # a recording replaces what was there before it began, and not its own
        recording, put = settings.cache_mode == RECORD, self._cache.put
        self.store = partial(put, over=self._journal.clock()) if recording else put

    def take(self, job: Job, origin: Origin) -> tuple[Fill, bool]:
        """The call whose answer this request gets, and whether it was running already.

        Call ``fill.flight.follow()`` before the next await.
        """
        want = job.want
        asked = self._asks(job, want)
        if not job.shared:
            return self._alone(job, origin, asked)
        # an answer with token counts serves everybody, one without them only those who do not want them
        digest, whose = job.key.digest, self._whose(job)
        for name in (digest + _USAGE[want.usage] + whose, digest + _USAGE[True] + whose):
            fill = self._fills.get(name)
            if fill is not None and not fill.flight.spilled:
                return fill, True
        name = digest + _USAGE[asked.usage] + whose
        request = _request(job, origin, asked)
        flight, _ = self._flights.lead_or_join(name)
        fill = self._lead(job, request, asked, flight)
        self._fills[name] = fill
        return fill, False

    def _whose(self, job: Job) -> bytes:
        """Callers who share what is stored share no call that a server answers by their credentials: it may refuse."""
        apart = self._policy.shared and job.destination.passes_credentials
        return partition(job.ask.headers) if apart else b""

    def _alone(self, job: Job, origin: Origin, asked: Form) -> tuple[Fill, bool]:
        """A call that only the same caller may join, when it asks again because it lost patience."""
        name, again = _attempt(job.ask)
        running = self._fills.get(name) if again else None
        if running is not None and not running.flight.spilled and not running.flight.over:
            return running, True
        flight = Flight(name, max_bytes=PRIVATE_BUFFER, ended=lambda _: None)
        fill = self._lead(job, _request(job, origin, asked), asked, flight)
        if job.ask.method == "POST":
            self._fills.setdefault(name, fill)
        return fill, False

    def _lead(self, job: Job, request: Request, asked: Form, flight: Flight) -> Fill:
        """From here on nothing may fail: what is counted now ends with the call."""
        path = job.ask.target.decode("latin-1")
        fill = Fill(
            flight,
            path,
            asked=asked,
            use=self._keeper.use(job.destination.model_key) if self._is_use(job.ask) else Use(),
            journal=self._journal,
            store=(job.keep or self.store) if job.shared else None,
            question=self._question(job, path) if job.shared else b"",
            finish=self._settings.finish_seconds,
            owner=self,
            lane_name=_lane_name(job, request),
        )
        fill.call = self._pacer.call(request, fill)
        return fill

    def _is_use(self, ask: Ask) -> bool:
        """Whether somebody uses the model; who looks whether it is there, or warms it up, does not.

        Of all that is no POST only the look at an answer is use: the server may be working on it.
        """
        uses = ask.method == "POST" or (ask.method == "GET" and ask.path.startswith(_ANSWERS))
        return uses and self._warmth.is_use(ask)

    def _question(self, job: Job, path: str) -> bytes:
        """The key of a body that was seen lately comes without it; large bodies have keys of their own each time."""
        if job.key.question or len(job.ask.body) > BIG_BODY:
            return job.key.question
        return question_of(path, job.ask.body, policy=self._policy)

    # --- for fills ---------------------------------------------------------------------------------------
    def answered(self, fill: Fill, status: int, headers: Headers) -> None:
        self._pacer.answered(fill, status, headers)

    def over(self, fill: Fill) -> None:
        self._pacer.over(fill)
        name = fill.flight.digest
        if self._fills.get(name) is fill:
            del self._fills[name]

    def _asks(self, job: Job, want: Form) -> Form:
        """In which form the model server is asked: as the client did, or for a stream to be put together."""
        streams, destination, settings = job.key.stream, job.destination, self._settings
        if not streams and streams_upstream(destination, settings) and _may_stream(job):
            return Form(stream=True, usage=True)
        if (
            streams
            and job.shared
            and counts_upstream(destination, settings)
            and counts_on_request(job.ask.path)
        ):
            return Form(stream=True, usage=True)
        return want


def _may_stream(job: Job) -> bool:
    """Whether a request for a document may become one for a stream: not where the server is to keep the answer."""
    path = job.ask.path
    return converts(path) and (counts_on_request(path) or job.key.cacheable)


def _lane_name(job: Job, request: Request) -> tuple[object, ...]:
    """Whose requests a server counts together: those with one credential and for one model."""
    owner = job.ask.owner(passes_credentials=True) if job.destination.passes_credentials else b""
    return request.origin.place, owner, job.key.model


def _attempt(ask: Ask) -> tuple[bytes, bool]:
    """What a repetition of this request has in common with it, and whether this is one.

    Never the same for two callers: their credentials count and, for those without any, their addresses. SDKs say so
    when they ask again (``x-stainless-retry-count``) or name what they ask (``Idempotency-Key``).
    """
    once = get(ask.headers, b"idempotency-key")
    parts = (
        ask.owner(passes_credentials=True),
        ask.client.encode(),
        ask.method.encode(),
        ask.target,
        once,
        ask.body,
    )
    name = sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).digest()
    return name, bool(once) or get(ask.headers, b"x-stainless-retry-count") not in (b"", b"0")


def _request(job: Job, origin: Origin, asked: Form) -> Request:
    destination, ask = job.destination, job.ask
    headers: Headers = to_upstream(ask.headers, credentials=destination.passes_credentials)
    if destination.api_key is not None:
        headers.append((b"authorization", b"Bearer " + destination.api_key.reveal().encode("latin-1")))
    body = ask.body if asked == job.want else _as_stream(ask.body, ask.path)
    method = "GET" if ask.method == "HEAD" else ask.method  # model servers know HEAD for hardly any path
    return Request(origin, method.encode(), ask.target, headers, body)


def _as_stream(body: bytes, path: str) -> bytes:
    """The same request, for a stream with token counts. The body is a JSON object: its key was made from it."""
    question = json.loads(body)
    question["stream"] = True
    options = question.get("stream_options") or {}
    if counts_on_request(path) and isinstance(options, dict):  # what else stands there, the server refuses
        question["stream_options"] = {**options, "include_usage": True}
    return compact(question)
