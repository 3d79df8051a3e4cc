"""Not a module of logic: who owns what, in which order it opens and closes, and which half answers which path."""

import asyncio
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
from llmpod.observe import Journal, Log, Metrics
from llmpod.observe.dashboard import load_page
from llmpod.proxy.accounts import Accounts, tally_of
from llmpod.proxy.admin import Admin, admin_routes
from llmpod.proxy.bounds import connections
from llmpod.proxy.demand import Demand
from llmpod.proxy.dispatch import Dispatch
from llmpod.proxy.gate import Gate
from llmpod.proxy.house import House
from llmpod.proxy.keeper import Keeper
from llmpod.proxy.limits import Limiter
from llmpod.proxy.memory import MemoryWatch
from llmpod.proxy.ops import SAFE, Ops, routes
from llmpod.proxy.pacer import Pacer
from llmpod.proxy.prewarm import Prewarmer, Warmth
from llmpod.proxy.reload import Cellar, Reloader
from llmpod.proxy.room import Room, room_bytes
from llmpod.proxy.slots import Slots
from llmpod.proxy.sweep import Deadlines, Door, Sweep
from llmpod.proxy.tls import Certificates
from llmpod.proxy.upstream import Upstream, patience_of
from llmpod.proxy.watchdog import Watchdog

FLUSH_SECONDS: Final = 0.1
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Front:
    """The ASGI application, FastAPI: everything but ``/v1``, which the edge hands to the relay by itself.

    Args:
        settings: at the start.
        log: of the process.
        again: reads the settings anew; raises LlmpodError.

    Attributes:
        ops: what the ops routes show; there once the lifespan has begun.
        certificates: of the server; None for plain HTTP.
    """

    def __init__(self, settings: ProxySettings, log: Log, *, again: Callable[[], ProxySettings]) -> None:
        self._settings = settings
        self._log = log
        self._again = again
        self._warmth = Warmth(settings)
        self._first_gate = self._gate(settings)
        self._house: House | None = None
        self._reloader: Reloader | None = None
        self.certificates = Certificates.of(settings, log)
        self._watchdog = Watchdog()
        self.ops: Ops | None = None
        self._waited: Demand | None = None
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
            cache = await self._cache(stack)
            upstream = Upstream(patience_of(settings), metrics, plain=settings.allow_plain_http)
            stack.push_async_callback(upstream.aclose)
            pacer = Pacer(upstream, places=settings.max_queue, patience=settings.queue_seconds)
            keeper = Keeper(settings, self._log, changed=pacer.try_again)
            await keeper.start()
            stack.push_async_callback(keeper.aclose)
            prewarmer = Prewarmer(settings, keeper, self._warmth, self._log)
            await prewarmer.start()
            stack.push_async_callback(prewarmer.aclose)
            dispatch = Dispatch(
                settings, cache=cache, keeper=keeper, pacer=pacer, journal=journal, warmth=self._warmth
            )
            demand = self._demand(stack, keeper)
            self.ops = Ops(settings, cache, keeper, journal, upstream, pacer, would_start=demand.would_start)
            self._web.include_router(routes(self.ops, load_page()))
            accounts = Accounts(tally_of(settings), self._log)
            accounts.start()
            stack.push_async_callback(accounts.aclose)
            slots = Slots(settings.max_in_flight, settings.max_queue, patience=settings.queue_seconds)
            memory = MemoryWatch(settings.memory_bytes, self._log, relieve=cache.relieve)
            self.ops.memory, slots.full = memory, lambda: memory.full
            sweep = self._sweep(slots, memory, cache)
            self._web.include_router(admin_routes(Admin(settings, keeper, demand, sweep.answers)))
            stack.callback(sweep.close)
            stack.callback(self._watchdog.close)
            room = Room(room_bytes(settings))
            limiter = Limiter(settings, accounts, spares=self._warmth.is_ours)
            cellar = Cellar(
                cache, keeper, upstream, pacer, dispatch, demand, self._warmth, accounts, limiter, self.ops
            )
            desk, relay = cellar.rooms(settings)
            self.ops.door = door = self._door()
            self.ops.alarms = self._alarms
            self._house = house = House(door, self._first_gate, desk, relay, sweep, limiter, slots, room)
            self._reloader = Reloader(self._again, self._gate, house=house, cellar=cellar, log=self._log)
            yield {"house": house}

    @property
    def drain_seconds(self) -> float:
        """How long answers may go on when the server is told to end."""
        return (self.ops.settings if self.ops is not None else self._settings).drain_seconds

    async def _cache(self, stack: AsyncExitStack) -> Cache:
        """What is stored; closed with the lifespan."""
        settings = self._settings
        cache = await Cache.open(
            settings.cache_dir,
            max_entries=settings.max_cache_size,
            max_bytes=settings.max_cache_bytes,
            ttl_seconds=settings.entry_seconds,
        )
        stack.push_async_callback(cache.aclose)
        return cache

    def _demand(self, stack: AsyncExitStack, keeper: Keeper) -> Demand:
        """Who starts models; ends with the lifespan."""
        self._waited = demand = Demand(self._settings, keeper, self._log)
        demand.start()
        stack.push_async_callback(demand.aclose)
        return demand

    def close_doors(self) -> None:
        """The server stops: it is no longer ready, and nobody waits for a model that will not be used."""
        if self.ops is not None:
            self.ops.draining = True
        if self._waited is not None:
            self._waited.scheduler.close()

    def reload(self) -> None:
        """Read settings, keys and certificates anew, now."""
        self._log.info("reload")
        if self._reloader is None:  # told so early that they were just read
            return
        self._reloader.run()
        self._follow(now=True)

    def _gate(self, settings: ProxySettings) -> Gate:
        """Raises ConfigError: the file of keys cannot be used."""
        own = {"manager": settings.own_key, "warming": self._warmth.key}
        return Gate(settings, self._log, own=own, clock=time.monotonic)

    def _follow(self, *, now: bool = False) -> None:
        """Take over keys and certificates that changed."""
        if self._house is not None and self._house.gate.keyring is not None:
            self._house.gate.keyring.refresh(now=now)
        if self.certificates is not None:
            self.certificates.refresh(now=now)

    def _sweep(self, slots: Slots, memory: MemoryWatch, cache: Cache) -> Sweep:
        """Starts looking after connections, keys and certificates; a watchdog looks whether that goes on."""
        seen, degraded = 0, self._tell_of(cache, None)

        def chores() -> None:
            nonlocal seen, degraded
            degraded = self._tell_of(cache, degraded)
            self._watchdog.beat()
            self._follow()
            slots.expire()
            memory.look()
            if self._house is not None and self._house.gate.version != seen:
                seen = self._house.gate.version
                sweep.forget()

        sweep = Sweep(Deadlines.of(self._settings), asyncio.get_running_loop(), chore=chores)
        self._watchdog.start()
        return sweep

    def _alarms(self) -> list[str]:
        """What is wrong with keys and certificates; what was good serves on (F54, F55)."""
        keyring = self._house.gate.keyring if self._house is not None else None
        found = [keyring.trouble] if keyring is not None and keyring.trouble else []
        return [*found, *(self.certificates.alarms() if self.certificates is not None else ())]

    def _tell_of(self, cache: Cache, before: str | None) -> str | None:
        """Say so when entries are no longer stored on disk, and when they are again; returns why they are not."""
        reason = cache.degraded
        if reason != before and reason:
            self._log.warning("cache_degraded", reason=reason)
        elif reason != before:
            self._log.info("cache_well")
        return reason

    def _door(self) -> Door:
        def say(refused: int) -> None:
            self._log.warning("too_many_connections", refused=refused)

        s = self._settings
        return Door(
            connections(s.max_connections), s.max_connections_per_source, say=say, clock=time.monotonic
        )


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


async def _refused(_: Request, error: Exception) -> JSONResponse:
    status = getattr(error, "status_code", 500)
    body = {
        "message": str(getattr(error, "detail", error)),
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    return JSONResponse({"error": body}, status, headers={**SAFE, **(getattr(error, "headers", None) or {})})
