"""Not the world: takes HTTP calls to it, logs them, and lets them go wrong as ordered."""

import asyncio
import json

from llmpod.sim import graphql
from llmpod.sim.control import Control
from llmpod.sim.faults import Fault, parse
from llmpod.sim.front import CLOUDFLARE, Front, parsed, problem_headers, too_many
from llmpod.sim.hub import HubHost
from llmpod.sim.logs import log_query, stream
from llmpod.sim.problems import NO_INSTANCES, NO_MONEY, NO_POD, NO_RIGHT, Problem
from llmpod.sim.routes import Operation, Result, Routes
from llmpod.sim.wire import Exchange
from llmpod.sim.world import Call, World

_DETAILS = {
    400: "request could not be processed",
    401: "missing bearer token",
    402: NO_MONEY,
    403: NO_RIGHT,
    404: NO_POD,
    409: "the action is not valid for the pod's current status",
    410: "this API has been retired",
    422: "Request validation failed.",
}
_TROUBLE = "Something went wrong. Please try again later or contact support."
_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_RETIRED = {"error": "REST API v1 has been retired. Use https://api.runpod.io/v2."}


class Api:
    """The fake RunPod API, and the control API beside it. `handle` is a handler for `wire.Server`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._front = Front(world)
        self._routes = Routes(world, self._front)
        self._control = Control(world)
        self._hub = HubHost(world.faults)

    async def handle(self, exchange: Exchange) -> None:
        """Answer one call."""
        request = exchange.request
        if request.path.startswith("/__sim/"):
            await self._control.handle(exchange)
        elif request.path.startswith(("/hub/", "/hub-cdn/")):
            self._log(exchange, await self._hub.handle(exchange))
        elif request.path == "/graphql":
            await self._graphql(exchange)
        elif request.path == "/v1" or request.path.startswith("/v1/"):
            await self._send(exchange, Result(410, _RETIRED), admitted=False)
        else:
            await self._v2(exchange)

    async def _graphql(self, exchange: Exchange) -> None:
        """The account's money; without a key it answers, too, but of nobody."""
        request, keyed = exchange.request, "authorization" in exchange.request.headers

        async def run() -> Result:
            return Result(*graphql.answer(request.body, self._world, keyed=keyed))

        try:
            if keyed and self._front.admit(request) is not None:
                raise Problem(403, NO_RIGHT)  # a pod's own key sees no account
            await self._perform(exchange, Operation("graphql", run))
        except Problem as problem:
            await self._problem(exchange, problem, admitted=False)

    async def _v2(self, exchange: Exchange) -> None:
        admitted = False
        await asyncio.sleep(self._world.behavior.api_latency_seconds)
        try:
            self._front.check_size(exchange.request.body)
            if self._front.dislikes(exchange.request):
                await self._raw(exchange, 403, CLOUDFLARE, "text/plain; charset=UTF-8")
                return
            pod = self._front.admit(exchange.request)
            admitted = True
            operation = self._routes.find(exchange.request)
            if pod is not None:
                _check_own(pod, operation, exchange)
            await self._perform(exchange, operation)
        except Problem as problem:
            await self._problem(exchange, problem, admitted=admitted or problem.status in (403, 429))

    async def _perform(self, exchange: Exchange, operation: Operation) -> None:
        text = self._world.faults.take(operation.name)
        fault = parse(text) if text else None
        if fault is None:
            await self._done(exchange, operation)
            return
        done = await operation.run() if fault.after else None
        if fault.kind != "slow":
            await self._fail(exchange, fault)
            return
        await asyncio.sleep(fault.number)
        if done is None:
            await self._done(exchange, operation)
        else:
            await self._send(exchange, done)

    async def _done(self, exchange: Exchange, operation: Operation) -> None:
        if operation.name != "logs" or operation.pod_id is None:
            await self._send(exchange, await operation.run())
            return
        request = exchange.request
        await operation.run()  # 404 comes first
        wanted = log_query(request.query, request.headers.get("last-event-id"))
        self._log(exchange, 200)
        headers = self._front.headers(admitted=True)
        await stream(
            exchange, self._world.runners[operation.pod_id].journal, (self._world.clock, wanted), headers
        )

    async def _fail(self, exchange: Exchange, fault: Fault) -> None:
        match fault.kind:
            case "dropped" | "reset":
                self._log(exchange, 0)
                exchange.reset()
            case "hang":
                self._log(exchange, 0)
                await exchange.left()
            case "garbage":
                await self._raw(exchange, 201, b'{"id": "\x00\xff', "application/json")
            case "html":
                await self._raw(exchange, 502, _PAGE, "text/html")
            case "1010":
                await self._raw(exchange, 403, CLOUDFLARE, "text/plain; charset=UTF-8")
            case "empty":
                page = {"pods": [], "pagination": {"nextCursor": None, "hasNextPage": False}}
                await self._send(exchange, Result(200, page))
            case "errors":
                await self._send(exchange, Result(*graphql.TROUBLE))
            case "phantom":
                await self._send(exchange, self._routes.phantom(exchange.request))
            case "capacity":
                raise Problem(400, NO_INSTANCES)
            case _:
                status = int(fault.kind)
                raise too_many() if status == 429 else Problem(status, _DETAILS.get(status, _TROUBLE))

    # --- answers
    async def _send(self, exchange: Exchange, result: Result, *, admitted: bool = True) -> None:
        self._log(exchange, result.status)
        headers = self._front.headers(admitted=admitted)
        if result.body is None:
            await exchange.reply(result.status, b"", headers)
        else:
            await exchange.json(result.status, result.body, headers)

    async def _problem(self, exchange: Exchange, problem: Problem, *, admitted: bool) -> None:
        self._log(exchange, problem.status)
        headers = [*problem_headers(problem), *self._front.headers(admitted=admitted)]
        await exchange.reply(problem.status, json.dumps(problem.body).encode(), headers)

    async def _raw(self, exchange: Exchange, status: int, body: bytes, kind: str) -> None:
        self._log(exchange, status)
        await exchange.reply(status, body, [("content-type", kind), *self._front.headers(admitted=False)])

    def _log(self, exchange: Exchange, status: int) -> None:
        request = exchange.request
        self._world.calls.append(Call(request.method, request.path, status, self._world.clock.now()))


def _check_own(pod: str, operation: Operation, exchange: Exchange) -> None:
    """A pod's own key may stop and delete that pod and nothing else (6.2). Raises Problem 403, 400."""
    own = operation.pod_id == pod
    if own and operation.name == "delete":
        return
    if own and operation.name == "action":
        body = parsed(exchange.request.body)
        if isinstance(body, dict) and body.get("action") in ("stop", "terminate"):
            return
    raise Problem(403, NO_RIGHT)
