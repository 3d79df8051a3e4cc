"""Not the front: the operations of the API, each from a request to an answer's status and body."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from llmpod.sim import catalog_routes, serverless_routes
from llmpod.sim.billing import pod_billing
from llmpod.sim.contract import check_action, check_create, check_rules, check_update
from llmpod.sim.feed import Request
from llmpod.sim.front import Front, parsed
from llmpod.sim.paging import page_of
from llmpod.sim.problems import NO_METHOD, NO_PATH, Problem
from llmpod.sim.world import World


@dataclass(frozen=True)
class Result:
    """An answer; `body` None means there is none."""

    status: int
    body: dict[str, Any] | None = None


@dataclass(frozen=True)
class Operation:
    """What a request asks for: a name for faults, and how to do it."""

    name: str
    run: Callable[[], Awaitable[Result]]
    pod_id: str | None = None


class Routes:
    """Finds the operation of a request."""

    def __init__(self, world: World, front: Front) -> None:
        self._world = world
        self._front = front

    def find(self, request: Request) -> Operation:
        """Raises Problem: 404 for an unknown path, 405 with Allow for an unknown method."""
        parts = [part for part in request.path.split("/") if part]
        methods = self._methods(parts, request)
        if not methods:
            raise Problem(404, NO_PATH)
        if request.method not in methods:
            raise Problem(405, NO_METHOD, headers=(("Allow", ", ".join(methods)),))
        return methods[request.method]

    def _methods(self, parts: list[str], request: Request) -> dict[str, Operation]:
        match parts:
            case ["v2", "pods"]:
                return {
                    "GET": Operation("list", lambda: self._list(request)),
                    "POST": Operation("create", lambda: self._create(request)),
                }
            case ["v2", "pods", pod]:
                return {
                    "GET": Operation("get", lambda: self._get(pod), pod),
                    "PATCH": Operation("update", lambda: self._update(pod, request), pod),
                    "DELETE": Operation("delete", lambda: self._delete(pod), pod),
                }
            case ["v2", "pods", pod, "action"]:
                return {"POST": Operation("action", lambda: self._act(pod, request), pod)}
            case ["v2", "pods", pod, "logs"]:
                return {"GET": Operation("logs", lambda: self._get(pod), pod)}
            case ["v2", "catalog", *rest]:
                return self._catalog(rest, request)
            case ["v2", "serverless", *rest]:
                return self._serverless(rest, request)
            case ["v2", "billing", "pods"]:
                return {"GET": Operation("billing", lambda: self._billing(request))}
        return {}

    def _catalog(self, rest: list[str], request: Request) -> dict[str, Operation]:
        answer = catalog_routes.find(rest, request.query, self._world)
        if answer is None:
            return {}

        async def run() -> Result:
            return Result(200, answer())

        return {"GET": Operation("catalog", run)}

    def _serverless(self, rest: list[str], request: Request) -> dict[str, Operation]:
        def operation(name: str, answer: serverless_routes.Answer) -> Operation:
            async def run() -> Result:
                return Result(200, await answer())

            return Operation(name, run)

        found = serverless_routes.find(rest, request, self._world)
        return {method: operation(name, answer) for method, (name, answer) in found.items()}

    # --- pods
    async def _list(self, request: Request) -> Result:
        behavior = self._world.behavior
        pods = self._world.listed()
        if not behavior.pagination:
            return Result(200, {"pods": pods})
        return Result(200, page_of(pods, request.query, most=behavior.page_size, short=behavior.short_pages))

    async def _create(self, request: Request) -> Result:
        body = self._checked_create(request)
        pod = self._world.create(body)
        return Result(201, pod.shown(self._world.clock.now()))

    def phantom(self, request: Request) -> Result:
        """What create answers for a pod that never exists. Raises Problem."""
        pod = self._world.phantom(self._checked_create(request))
        return Result(201, pod.shown(self._world.clock.now()))

    def _checked_create(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = parsed(request.body)
        check_create(body, old=self._world.behavior.old_payload)
        check_rules(body, create=True)
        self._front.check_size(json.dumps(body).encode())
        return body

    async def _get(self, pod: str) -> Result:
        return Result(200, self._world.found(pod))

    async def _update(self, pod: str, request: Request) -> Result:
        body = parsed(request.body)
        check_update(body, old=self._world.behavior.old_payload)
        check_rules(body, create=False)
        changed = await self._world.update(pod, body)
        return Result(200, changed.shown(self._world.clock.now()))

    async def _delete(self, pod: str) -> Result:
        self._world.terminate(pod)
        return Result(204)

    async def _act(self, pod: str, request: Request) -> Result:
        action = check_action(parsed(request.body))
        if action == "terminate":
            return await self._delete(pod)
        changed = await self._world.act(pod, action)
        return Result(200, changed.shown(self._world.clock.now()))

    async def _billing(self, request: Request) -> Result:
        known_until = self._world.clock.now() - self._world.behavior.billing_lag_seconds
        return Result(200, pod_billing(request.query, self._world.pods, known_until))
