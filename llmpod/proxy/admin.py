"""Not the scheduler: what operators see of the models and ask of them. FastAPI routes, no call to any server.

A start or a stop from here is a wish like a request's: money and a person's "down" bind it, and what is at work is not
stopped. Who may ask is the table in access.py.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from llmpod.config import ProxySettings
from llmpod.errors import BadRequest, LlmpodError, NotRouted
from llmpod.lifecycle.share import past_starts
from llmpod.observe.logs import iso
from llmpod.proxy.answer import Answer
from llmpod.proxy.demand import Demand
from llmpod.proxy.keeper import Keeper
from llmpod.proxy.ops import READ, SAFE
from llmpod.proxy.route import Destination


class Conflict(LlmpodError):
    """It cannot be done as things are now."""

    status: ClassVar[int] = 409
    type: ClassVar[str] = "invalid_request_error"
    code: ClassVar[str] = "conflict"


class Cancelled(LlmpodError):
    """Somebody who may has ended this answer."""

    status: ClassVar[int] = 503
    code: ClassVar[str] = "cancelled"


@dataclass(frozen=True, slots=True)
class Admin:
    """What the routes below show and do.

    Args:
        settings: where the state is.
        keeper: knows where the models are.
        demand: starts and stops them.
        answers: those that are being given now.
    """

    settings: ProxySettings
    keeper: Keeper
    demand: Demand
    answers: Callable[[], Iterable[Answer]]

    def routes(self) -> list[dict[str, Any]]:
        """The models, the default one first, and how requests find them."""
        return [
            {
                "model": d.model_key,
                "names": list(d.names),
                "path": f"{d.route.path}/v1" if d.route is not None and d.route.path else "/v1",
                "phase": str(d.phase) if d.phase else "fixed endpoint",
                "starts": "on request" if self.demand.manages(d.model_key) else "always",
            }
            for d in self.keeper.destinations
        ]

    def stats(self) -> dict[str, Any]:
        """Of each model: what it does, what it was used for, and how long its starts take."""
        return {
            "swaps": self.demand.scheduler.swaps,
            "models": [self._of(d) for d in self.keeper.destinations],
        }

    def start(self, name: str) -> dict[str, Any]:
        """Wish that a model be started. Raises LlmpodError: why not."""
        destination = self._managed(name)
        ready = self.demand.call(destination.model_key)
        return {"model": destination.model_key, "state": "awake" if ready else "waking"}

    def stop(self, name: str) -> dict[str, Any]:
        """Wish that a model be stopped. Raises LlmpodError: it is at work, or it is not ours to stop."""
        return self._stopped(name, self.demand.dismiss)

    def restart(self, name: str) -> dict[str, Any]:
        """Wish that a model be stopped and started again. Raises LlmpodError: as for both."""
        return self._stopped(name, self.demand.renew)

    def in_flight(self) -> list[dict[str, Any]]:
        """The answers that are being given. No text of any request."""
        return [
            {
                "id": _id(answer),
                "method": answer.ask.method,
                "path": answer.ask.path,
                "model": answer.model,
                "client": answer.ask.client,
                "caller": answer.ask.leave.caller,
                "cache": answer.cache,
                "seconds": round(answer.seconds, 3),
                "bytes": answer.bytes,
            }
            for answer in self.answers()
        ]

    def cancel(self, wanted: str) -> dict[str, Any]:
        """End one of them. Raises NotRouted: it is over already."""
        for answer in self.answers():
            if _id(answer) == wanted:
                answer.fail(Cancelled("This answer was ended by an operator."))
                return {"id": wanted, "cancelled": True}
        raise NotRouted(f"No answer {wanted!r} is being given now.")

    def starts(self) -> list[dict[str, Any]]:
        """The measured starts, oldest first."""
        path = self.settings.state_file
        return past_starts(path) if path is not None else []

    def _stopped(self, name: str, way: Callable[[str], bool]) -> dict[str, Any]:
        destination = self._managed(name)
        if not way(destination.model_key):
            busy = self.keeper.use(destination.model_key).in_flight
            raise Conflict(
                f"{name} is at work ({busy} in flight); nothing was stopped.", hint="See /admin/inflight."
            )
        return {"model": destination.model_key, "state": self.demand.state(destination.model_key)}

    def _managed(self, name: str) -> Destination:
        found = next((d for d in self.keeper.destinations if name in (d.model_key, *d.names)), None)
        if found is None:
            raise NotRouted(f"There is no model {name!r} here.", hint="GET /routes lists those there are.")
        if not self.demand.manages(found.model_key):
            raise Conflict(
                f"{name} does not start with requests.", hint="Use: python3 manage_pod.py up, down"
            )
        return found

    def _of(self, destination: Destination) -> dict[str, Any]:
        use, typical = self.keeper.use(destination.model_key), destination.typical_start
        managed = self.demand.manages(destination.model_key)
        return {
            "model": destination.model_key,
            "phase": str(destination.phase) if destination.phase else "fixed endpoint",
            "state": self.demand.state(destination.model_key) if managed else None,
            "waiting": self.demand.waiting(destination.model_key) if managed else 0,
            "in_flight": use.in_flight,
            "requests": use.requests,
            "last_byte": iso(use.last_byte) if use.last_byte else None,
            "typical_start_seconds": typical[0] if typical else None,
            "starts": typical[1] if typical else 0,
        }


def admin_routes(admin: Admin) -> APIRouter:
    """The routes, each a line over :class:`Admin`."""
    router = APIRouter()

    @router.api_route("/healthz", methods=READ)
    async def healthz() -> JSONResponse:
        return _json({"status": "ok"})

    @router.api_route("/routes", methods=READ)
    async def routes() -> JSONResponse:
        return _json({"routes": admin.routes()})

    @router.api_route("/stats", methods=READ)
    async def stats() -> JSONResponse:
        return _json(admin.stats())

    @router.api_route("/admin/inflight", methods=READ)
    async def in_flight() -> JSONResponse:
        return _json({"in_flight": admin.in_flight()})

    @router.api_route("/admin/starts", methods=READ)
    async def starts() -> JSONResponse:
        return _json({"starts": admin.starts()})

    @router.post("/admin/start")
    async def start(request: Request) -> JSONResponse:
        return await _done(request, "model", admin.start)

    @router.post("/admin/stop")
    async def stop(request: Request) -> JSONResponse:
        return await _done(request, "model", admin.stop)

    @router.post("/admin/restart")
    async def restart(request: Request) -> JSONResponse:
        return await _done(request, "model", admin.restart)

    @router.post("/admin/cancel")
    async def cancel(request: Request) -> JSONResponse:
        return await _done(request, "id", admin.cancel)

    return router


async def _done(request: Request, field: str, act: Callable[[str], dict[str, Any]]) -> JSONResponse:
    """Do it with the one field of the body."""
    try:
        return _json(act(await _field(request, field)))
    except LlmpodError as e:
        headers = {"retry-after": str(max(1, round(e.retry_after)))} if e.retry_after is not None else {}
        return JSONResponse(e.as_openai(), e.status, headers={**SAFE, **headers})


async def _field(request: Request, name: str) -> str:
    """Raises BadRequest. JSON only: a web page could send a form without asking."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise BadRequest(
            "The Content-Type must be application/json.", hint="curl: -H 'Content-Type: application/json'"
        )
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        body = None
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value:
        raise BadRequest(f'The body must be {{"{name}": "…"}}.', param=name)
    return value


def _id(answer: Answer) -> str:
    """Names an answer, and never another one: it may have ended before somebody ends it."""
    return f"{os.getpid():x}-{answer.number:x}"


def _json(value: Any) -> JSONResponse:
    return JSONResponse(value, headers=SAFE)
