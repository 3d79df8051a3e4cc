"""Not a module of logic: who owns what, in which order it opens and closes, and which half answers which path."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse

from llmpod import __version__
from llmpod.cache import Cache
from llmpod.config import ProxySettings
from llmpod.lifecycle.tally import tally_file
from llmpod.observe import Journal, Log, Metrics
from llmpod.observe.dashboard import load_page
from llmpod.proxy.accounts import Accounts
from llmpod.proxy.bounds import open_files
from llmpod.proxy.desk import Desk
from llmpod.proxy.dispatch import Dispatch
from llmpod.proxy.gate import Gate
from llmpod.proxy.hits import Hits
from llmpod.proxy.house import House
from llmpod.proxy.keepalive import Keepalive
from llmpod.proxy.keeper import Keeper
from llmpod.proxy.limits import Limiter
from llmpod.proxy.ops import SAFE, Ops, routes
from llmpod.proxy.pacer import Pacer
from llmpod.proxy.prewarm import Prewarmer, Warmth
from llmpod.proxy.relay import Relay
from llmpod.proxy.room import Room
from llmpod.proxy.slots import Slots
from llmpod.proxy.sweep import Deadlines, Door, Sweep
from llmpod.proxy.tls import Certificates
from llmpod.proxy.upstream import Patience, Upstream
from llmpod.proxy.watchdog import Watchdog

FLUSH_SECONDS: Final = 0.1
RESERVED_FILES: Final = 256  # of those that may be open: for the cache, the log and model servers
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Front:
    """The ASGI application, FastAPI: everything but ``/v1``, which the edge hands to the relay by itself.

    Attributes:
        ops: what the ops routes show; there once the lifespan has begun.
        certificates: of the server; None for plain HTTP.
    """

    def __init__(self, settings: ProxySettings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._warmth = Warmth(settings)
        own = {"manager": settings.own_key, "warming": self._warmth.key}
        self._gate = Gate(settings, log, own=own, clock=time.monotonic)
        self.certificates = Certificates.of(settings, log)
        self._watchdog = Watchdog()
        self.ops: Ops | None = None
        self._web = FastAPI(
            title="llmpod",
            version=__version__,
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            lifespan=self._lifespan,
        )
        self._web.add_exception_handler(HTTPException, _refused)
        self._web.add_exception_handler(404, _refused)
        self._web.add_exception_handler(405, _refused)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._web(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[dict[str, Any]]:
        """Opens in the order of need, closes in reverse; the edge finds desk and relay in the lifespan's state."""
        settings, metrics = self._settings, Metrics()
        journal = Journal(self._log, metrics)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_flushed(journal))
            cache = await Cache.open(
                settings.cache_dir,
                max_entries=settings.max_cache_size,
                max_bytes=settings.max_cache_bytes,
                ttl_seconds=settings.entry_seconds,
            )
            stack.push_async_callback(cache.aclose)
            if cache.degraded:
                self._log.warning("cache_degraded", reason=cache.degraded)
            upstream = Upstream(_patience(settings), metrics)
            stack.push_async_callback(upstream.aclose)
            pacer = Pacer(upstream, places=settings.max_queue, patience=settings.queue_seconds)
            keeper = Keeper(settings, self._log, changed=pacer.try_again)
            await keeper.start()
            stack.push_async_callback(keeper.aclose)
            prewarmer = Prewarmer(settings, keeper, self._warmth, self._log)
            await prewarmer.start()
            stack.push_async_callback(prewarmer.aclose)
            hits = Hits(cache)
            desk = Desk(settings, keeper, hits, journal)
            dispatch = Dispatch(
                settings, cache=cache, keeper=keeper, pacer=pacer, journal=journal, warmth=self._warmth
            )
            keepalive = Keepalive(settings, clock=journal.clock)
            relay = Relay(
                settings,
                desk,
                hits,
                cache=cache,
                keeper=keeper,
                dispatch=dispatch,
                keepalive=keepalive,
            )
            self.ops = Ops(settings, cache, keeper, journal, upstream, pacer)
            self._web.include_router(routes(self.ops, load_page()))
            accounts = await self._accounts()
            stack.push_async_callback(accounts.aclose)
            slots = Slots(settings.max_in_flight, settings.max_queue, patience=settings.queue_seconds)
            sweep = self._sweep(slots)
            stack.callback(sweep.close)
            stack.callback(self._watchdog.close)
            room = Room(max(settings.max_bodies_bytes, settings.max_body_bytes))
            limiter = Limiter(settings, accounts, spares=self._warmth.is_ours)
            yield {"house": House(self._door(), self._gate, desk, relay, sweep, limiter, slots, room)}

    def reload(self) -> None:
        """Read keys and certificates anew, now."""
        self._log.info("reload")
        self._follow(now=True)

    def _follow(self, *, now: bool = False) -> None:
        """Take over keys and certificates that changed."""
        if self._gate.keyring is not None:
            self._gate.keyring.refresh(now=now)
        if self.certificates is not None:
            self.certificates.refresh(now=now)

    async def _accounts(self) -> Accounts:
        """What was used with each key, as it was when the proxy ran last."""
        keys = self._settings.keys_file if self._gate.keyring is not None else None
        accounts = Accounts(tally_file(keys) if keys is not None else None, self._log)
        await accounts.start()
        return accounts

    def _sweep(self, slots: Slots) -> Sweep:
        """Starts looking after connections, keys and certificates; a watchdog looks whether that goes on."""
        seen = self._gate.version

        def chores() -> None:
            nonlocal seen
            self._watchdog.beat()
            self._follow()
            slots.expire()
            if self._gate.version != seen:
                seen = self._gate.version
                sweep.forget()

        sweep = Sweep(Deadlines.of(self._settings), asyncio.get_running_loop(), chore=chores)
        self._watchdog.start()
        return sweep

    def _door(self) -> Door:
        def say(refused: int) -> None:
            self._log.warning("too_many_connections", refused=refused)

        s = self._settings
        most = max(1, min(s.max_connections, open_files() - RESERVED_FILES))
        return Door(most, s.max_connections_per_source, say=say, clock=time.monotonic)


def _flushed(journal: Journal) -> Callable[[], Awaitable[None]]:
    """Starts writing the access log in short batches; what it returns writes the rest and stops."""

    async def run() -> None:
        while True:  # noqa: ASYNC110 - a batch at each interval is the point
            await asyncio.sleep(0 if journal.flush() else FLUSH_SECONDS)

    task = asyncio.create_task(run())

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        while journal.flush():
            pass

    return stop


def _patience(settings: ProxySettings) -> Patience:
    return Patience(
        connect=settings.connect_seconds,
        first_byte=settings.first_byte_seconds,
        idle=settings.idle_seconds,
        total=settings.total_seconds,
        quiet=settings.keepalive_seconds or math.inf,
    )


async def _refused(_: Request, error: Exception) -> JSONResponse:
    status = getattr(error, "status_code", 500)
    body = {
        "message": str(getattr(error, "detail", error)),
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    return JSONResponse({"error": body}, status, headers={**SAFE, **(getattr(error, "headers", None) or {})})
