"""Not the product: what people, scrapers and supervisors ask about it. FastAPI routes, no upstream call in any."""

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from llmpod import __version__
from llmpod.cache import Cache
from llmpod.config import ProxySettings
from llmpod.errors import NotRouted
from llmpod.model import Phase
from llmpod.observe import Journal
from llmpod.observe.dashboard import Page
from llmpod.observe.logs import iso
from llmpod.observe.metrics import exposition, wants_text
from llmpod.proxy.access import nowhere
from llmpod.proxy.headers import NOSNIFF, SANDBOX
from llmpod.proxy.keeper import Keeper
from llmpod.proxy.memory import MemoryWatch
from llmpod.proxy.origin import Origin
from llmpod.proxy.pacer import Pacer
from llmpod.proxy.route import Destination
from llmpod.proxy.sweep import Door
from llmpod.proxy.upstream import Upstream

READ = ["GET", "HEAD"]
FOR_EVERYBODY = ("status", "timestamp", "uptime", "instance", "pid", "parent", "settings", "version")
SAFE = {name.decode(): value.decode() for name, value in (NOSNIFF, *SANDBOX)} | {"cache-control": "no-store"}


@dataclass(slots=True)
class Ops:
    """What the routes below show.

    Args:
        draining: set by the server when it stops taking requests.
        memory: of this process, once it is watched.
        door: where connections come in, once it is open.
        alarms: what is wrong with its keys and certificates, for people.
        config_error: why the settings that came last were not taken over; empty when they were.
        clock: seconds since the epoch.
        would_start: whether a request that comes now would have a model started, and why not.
    """

    settings: ProxySettings
    cache: Cache
    keeper: Keeper
    journal: Journal
    upstream: Upstream
    pacer: Pacer
    clock: Callable[[], float] = time.time
    draining: bool = False
    would_start: Callable[[], tuple[bool, str]] = lambda: (False, "")
    config_error: str = ""
    memory: MemoryWatch | None = None
    door: Door | None = None
    alarms: Callable[[], Sequence[str]] = tuple
    started_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.started_at = self.clock()

    @property
    def uptime(self) -> float:
        return self.clock() - self.started_at

    def gauges(self) -> dict[str, float]:
        """Numbers that are read, not counted."""
        stats = self.cache.stats()
        return {
            "cache_entries": self.cache.entries,
            "cache_size_bytes": self.cache.size_bytes,
            "cache_max_entries": self.cache.max_entries,
            "cache_max_bytes": self.cache.max_bytes,
            "upstream_waiting": self.pacer.waiting,
            "cache_degraded": float(self.cache.degraded is not None),
            "cache_write_errors": stats["errors"],
            "cache_corrupt": stats["corrupt"],
            "connections": self.door.inside if self.door else 0,
            "connections_refused_total": self.door.refused if self.door else 0,
            "uptime_seconds": round(self.uptime, 3),
            "log_lines_dropped": self.journal.log.dropped,
            "memory_bytes": self.memory.bytes if self.memory else 0,
            "memory_full": float(self.memory.full) if self.memory else 0,
        }

    def health(self) -> dict[str, Any]:
        """The body of ``GET /health``. Times are ISO 8601 in UTC; sizes in bytes."""
        first = next(iter(self.keeper.destinations), None)
        origin = first.origin if first else None
        seen = self.journal.last_request
        return {
            "status": "draining" if self.draining else "healthy",
            "timestamp": iso(self.clock()),
            "endpoint": _endpoint(first),
            "cache_dir": str(self.settings.cache_dir) if self.settings.cache_dir else None,
            "cache_entries": self.cache.entries,
            "cache_size_bytes": self.cache.size_bytes,
            "max_cache_size": self.cache.max_entries,
            "max_cache_bytes": self.cache.max_bytes,
            "cache_degraded": self.cache.degraded,
            "uptime": round(self.uptime, 3),
            "llm_running": any(not self.upstream.is_down(origin) for origin in self._origins()),
            "target_port": origin.port if origin else None,
            "memory_bytes": self.memory.bytes if self.memory else 0,
            "memory_full": self.memory.full if self.memory else False,
            "alarms": list(self.alarms()),
            "config_error": self.config_error or None,
            "manager_trouble": self.keeper.trouble or None,
            "last_request": iso(seen) if seen else None,
            "instance": self.settings.token,
            "pid": os.getpid(),
            "parent": os.getppid(),
            "settings": self.settings.settings_digest,
            "version": __version__,
        }

    def ready(self) -> tuple[bool, str]:
        """Whether a new request that is not in the cache would be accepted now, and why not."""
        if self.draining:
            return False, "the proxy is being stopped"
        origins = self._origins()
        if any(not self.upstream.refuses(origin) for origin in origins):
            return True, ""
        if origins:
            return False, f"the model server cannot be reached ({', '.join(map(str, origins))})"
        starts, why = self.would_start()
        if starts or why:
            return starts, "a request starts the model" if starts else why
        phases = ", ".join(str(d.phase) for d in self.keeper.destinations)
        return False, f"no model server is ready ({phases or 'none is known'})"

    def _origins(self) -> list[Origin]:
        return [d.origin for d in self.keeper.destinations if d.origin is not None]

    def metrics(self) -> dict[str, Any]:
        return self.journal.metrics.as_json(self.gauges())

    def dashboard(self) -> dict[str, Any]:
        """The body of ``GET /dashboard`` for programs, and what the page shows. No text of any request."""
        return {
            "health": self.health(),
            "metrics": self.metrics(),
            "system": _system(),
            "configuration": _configuration(self.settings),
            "models": [_model(d, self.clock()) for d in self.keeper.destinations],
            "recent": self.journal.recent(),
        }


def _endpoint(destination: Destination | None) -> str | None:
    if destination is None or destination.origin is None:
        return None
    origin = destination.origin
    return f"{'https' if origin.tls else 'http'}://{origin}{origin.prefix.decode()}"


def _model(d: Destination, now: float) -> dict[str, Any]:
    began = d.created_at
    hours = max(0.0, now - began) / 3600 if began and d.phase not in (Phase.STOPPED, Phase.FAILED) else None
    return {
        "model": d.own_id,
        "names": list(d.names),
        "phase": str(d.phase) if d.phase else "fixed endpoint",
        "endpoint": _endpoint(d),
        "usd_per_hour": d.usd_per_hour,
        "usd_so_far": round(hours * d.usd_per_hour, 4)
        if hours is not None and d.usd_per_hour is not None
        else None,
        "deadline": d.deadline,
        "ready_at": d.ready_at,
        "error": d.error,
    }


def _system() -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    scale = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, kilobytes elsewhere
    return {
        "pid": os.getpid(),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
        "max_rss_bytes": used.ru_maxrss * scale,
    }


def _configuration(s: ProxySettings) -> dict[str, Any]:
    """What may be shown of the settings: nothing secret is among them."""
    return {
        "host": s.host,
        "port": s.port,
        "use_https": s.use_https,
        "cache_dir": str(s.cache_dir) if s.cache_dir else None,
        "max_cache_size": s.max_cache_size,
        "max_cache_bytes": s.max_cache_bytes,
        "cache_ttl_seconds": s.cache_ttl_seconds,
        "cache_policy": dict(s.cache_policy),
        "cache_masks": list(s.cache_masks),
        "cache_mode": s.cache_mode,
        "enable_profiling": s.enable_profiling,
        "log_level": s.log_level,
        "upstream_stream": s.upstream_stream,
        "first_byte_seconds": s.first_byte_seconds,
        "idle_seconds": s.idle_seconds,
        "total_seconds": s.total_seconds,
        "max_body_bytes": s.max_body_bytes,
    }


def routes(ops: Ops, page: Page) -> APIRouter:
    """The routes, as methods of nothing: each is a line over :class:`Ops`."""
    router = APIRouter()

    @router.api_route("/health", methods=READ)
    async def health(request: Request) -> Response:
        shown = ops.health()
        return _json(shown if request.state.known else {name: shown[name] for name in FOR_EVERYBODY})

    @router.api_route("/livez", methods=READ)
    async def livez() -> Response:
        return _json({"status": "ok"})

    @router.api_route("/readyz", methods=READ)
    async def readyz() -> Response:
        ready, why = ops.ready()
        return _json({"ready": ready, "reason": why}, status=200 if ready else 503)

    @router.api_route("/metrics", methods=READ)
    async def metrics(request: Request) -> Response:
        accept = request.headers.get("accept", "")
        if not wants_text(accept):
            return _json(ops.metrics())
        text, content_type = exposition(ops.journal.metrics, ops.gauges(), accept=accept)
        return Response(text, headers={**SAFE, "content-type": content_type})

    _for_people(router, ops, page)

    @router.api_route("/debug/cache", methods=READ)
    async def debug_cache() -> Response:
        if not ops.settings.enable_profiling:
            raise HTTPException(404, str(NotRouted("Profiling is off.", hint="Set ENABLE_PROFILING=true.")))
        order = ops.cache.lru_order()
        return _json(
            {"cache_entries": ops.cache.stats(), "total_entries": ops.cache.entries, "lru_order": order}
        )

    return router


def _for_people(router: APIRouter, ops: Ops, page: Page) -> None:
    """What a browser shows."""

    @router.api_route("/", methods=READ)
    async def root(request: Request) -> Response:
        if _is_browser(request):  # relative, since another server may have put this one below a path
            way = {"location": "dashboard", "content-type": "text/html; charset=utf-8"}
            return Response('<a href="dashboard">dashboard</a>', 307, headers={**SAFE, **way})
        return _json(nowhere().as_openai(), status=NotRouted.status)

    @router.api_route("/dashboard", methods=READ)
    async def dashboard(request: Request) -> Response:
        if _is_browser(request):
            return Response(page.html, headers=page.headers)
        return _json(ops.dashboard())


def _is_browser(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _json(value: Any, *, status: int = 200) -> Response:
    """Plain ASCII: the name of a folder may be no text, and half a surrogate pair has no other spelling."""
    return Response(json.dumps(value, allow_nan=False), status, headers=SAFE, media_type="application/json")
