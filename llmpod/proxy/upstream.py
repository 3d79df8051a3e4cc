"""Not httpx: a lean client for traffic to model servers, because per request its cost is ours to pay.

Why: httpx takes 2.7 ms of CPU a request at 64 connections, this about 0.05. It pools connections per server,
verifies TLS, splits time-outs, follows no redirect, asks for no encoding, and knows one retry: when nothing of the
request was sent (refused), or a pooled connection turns out stale at once, before a single byte of an answer came.
"""

import asyncio
import contextlib
import math
import ssl
from dataclasses import dataclass
from typing import Final

from llmpod.config import ProxySettings
from llmpod.errors import LlmpodError, UpstreamTimeout, UpstreamUnreachable
from llmpod.observe import Metrics
from llmpod.proxy.breaker import Breaker
from llmpod.proxy.dial import dial, overheard, unreachable, verifying
from llmpod.proxy.origin import Origin, Request
from llmpod.proxy.wire import Call, Connection, Sink

TICK_SECONDS: Final = 0.2  # how often deadlines are looked at; one timer for all calls
POOL_SECONDS: Final = 30.0  # how long an unused connection is kept
POOL_SIZE: Final = 256  # unused connections per server
MAX_DIALS: Final = 2  # of one call: while nothing was sent, one more attempt harms nobody (F1)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds.

    ``first_byte``: of the body; a server may send its head at once and then think. ``idle``: between two reads after
    it. ``total``: for the whole answer. ``quiet``: how often the sink is told that the body has not begun.
    """

    connect: float = 5.0
    first_byte: float = 300.0
    idle: float = 120.0
    total: float = 3600.0
    quiet: float = 15.0


def patience_of(settings: ProxySettings) -> Patience:
    """As it is configured."""
    return Patience(
        connect=settings.connect_seconds,
        first_byte=settings.first_byte_seconds,
        idle=settings.idle_seconds,
        total=settings.total_seconds,
        quiet=settings.keepalive_seconds or math.inf,
    )


class Upstream:
    """The pool. One event loop; every method but ``aclose`` returns at once.

    Args:
        patience: time-outs.
        metrics: counts calls, retries and failures.
        plain: whether other machines may be asked over http, where others can read it (T15).
        tls: context for https servers; by default the system's CAs, TLS 1.2 or newer.
    """

    def __init__(
        self, patience: Patience, metrics: Metrics, *, plain: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        self._breaker = Breaker(probe_seconds=patience.connect)
        self.adopt(patience, plain=plain)
        self._metrics = metrics
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._idle: dict[tuple[bool, str, int], list[Connection]] = {}
        self._open: set[Connection] = set()
        self._calls: set[Call] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.TimerHandle | None = None

    def adopt(self, patience: Patience, *, plain: bool) -> None:
        """Other terms, for the calls that come."""
        self._plain = plain
        self.idle_seconds = patience.idle
        self._patience = patience
        self._breaker.probe_seconds = patience.connect

    def call(self, request: Request, sink: Sink) -> Call:
        """Send a request; the answer or the failure goes to ``sink``, never before this returns."""
        call = self.expect(request, sink)
        self.send(call)
        return call

    def expect(self, request: Request, sink: Sink) -> Call:
        """A call that is to be sent later; until then only the total time counts."""
        call = Call(request, sink, self)
        now = self._loop.time()
        call.total = call.deadline = now + self._patience.total
        call.quiet_at = now + self._patience.quiet
        self._calls.add(call)
        if self._ticker is None:
            self._ticker = self._loop.call_later(TICK_SECONDS, self._tick)
        return call

    def send(self, call: Call) -> None:
        """Let an expected call go out."""
        call.deadline = self._loop.time() + self._patience.first_byte
        self._metrics.upstream_calls += 1
        if (connection := self._take(call.request.origin)) is not None:
            call.dials = 1
            connection.send(call)
        else:
            self._dial(call)

    def is_down(self, origin: Origin) -> bool:
        """Whether a model server could not be reached when it was last asked, several times in a row."""
        return self._breaker.is_open(origin)

    def refuses(self, origin: Origin) -> bool:
        """Whether a call to it would be refused now because of that."""
        return self._breaker.refuses(origin, self._loop.time())

    def try_again(self) -> None:
        """Something has changed about the servers: those that could not be reached may be tried at once."""
        self._breaker.forget()

    async def aclose(self) -> None:
        """Cancel what runs, close every connection; harmless when repeated."""
        for call in list(self._calls):
            call.fail(UpstreamUnreachable("The proxy is stopping."))
        for task in list(self._connecting):
            task.cancel()
        for connection in list(self._open):
            connection.abandon()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        await asyncio.gather(*self._connecting, return_exceptions=True)

    # --- for connections and calls (see wire.Owner) ----------------------------------------------------
    def released(self, connection: Connection, *, reusable: bool) -> None:
        stack = self._idle.setdefault(connection.place, [])
        if not reusable or len(stack) >= POOL_SIZE:
            connection.abandon()
            return
        connection.idle_since = self._loop.time()
        stack.append(connection)

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        with contextlib.suppress(ValueError, KeyError):
            self._idle[connection.place].remove(connection)

    def again(self, call: Call) -> None:
        self._metrics.upstream_retries += 1
        self._connect_for(call)

    def over(self, call: Call) -> None:
        self._calls.discard(call)

    # --- inside ----------------------------------------------------------------------------------------
    def _take(self, origin: Origin) -> Connection | None:
        stack = self._idle.get(origin.place)
        while stack:
            connection = stack.pop()
            if connection.usable:
                connection.used = True
                return connection
        return None

    def _dial(self, call: Call) -> None:
        origin = call.request.origin
        allowed = self._plain or not origin.in_the_clear
        refusal = self._breaker.refusal(origin, self._loop.time()) if allowed else overheard(origin)
        if refusal is not None:
            self._loop.call_soon(call.fail, refusal)
        else:
            self._connect_for(call)

    def _connect_for(self, call: Call) -> None:
        task = self._loop.create_task(self._connect(call))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, call: Call) -> None:
        origin = call.request.origin
        call.dials += 1
        try:
            async with asyncio.timeout(self._patience.connect):
                connection = await self._open_to(origin)
        except TimeoutError:
            self._unconnected(
                call,
                UpstreamTimeout(
                    f"No connection to the model server ({origin}) in {self._patience.connect:g} s."
                ),
            )
        except ConnectionError as e:
            if call.dials < MAX_DIALS and not call.over:
                self.again(call)
            else:
                self._unconnected(call, unreachable(origin, e))
        except OSError as e:
            self._unconnected(call, unreachable(origin, e))
        except UpstreamUnreachable as e:
            self._unconnected(call, e)
        else:
            self._breaker.worked(origin)
            if call.over:
                self.released(connection, reusable=connection.usable)
            else:
                connection.send(call)

    def _unconnected(self, call: Call, error: LlmpodError) -> None:
        self._breaker.failed(call.request.origin, self._loop.time())
        call.fail(error)

    async def _open_to(self, origin: Origin) -> Connection:
        context = (self._tls or verifying()) if origin.tls else None
        self._tls = context or self._tls
        connection = await dial(origin, lambda: Connection(self, origin.place), context)
        self._open.add(connection)
        return connection

    def _tick(self) -> None:
        """Look at every deadline. With a few hundred calls this costs microseconds, five times a second."""
        now = self._loop.time()
        for call in list(self._calls):
            if now > call.total:
                call.fail(UpstreamTimeout(f"The answer took longer than {self._patience.total:g} s."))
            elif now > call.deadline and not call.paused:
                call.fail(self._late(call))
            elif now > call.quiet_at and not call.begun:
                call.quiet_at = now + self._patience.quiet
                call.sink.quiet()
        for stack in self._idle.values():
            for connection in [c for c in stack if now - c.idle_since > POOL_SECONDS]:
                connection.abandon()
        alive = self._calls or any(self._idle.values())
        self._ticker = self._loop.call_later(TICK_SECONDS, self._tick) if alive else None

    def _late(self, call: Call) -> LlmpodError:
        if call.begun:
            return UpstreamTimeout(f"The model server sent nothing for {self._patience.idle:g} s.")
        return UpstreamTimeout(
            f"The model server did not begin its answer in {self._patience.first_byte:g} s.",
            hint="Ask for a stream, or for fewer tokens.",
        )
