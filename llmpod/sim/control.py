"""Not RunPod's: how tests and the demo look behind the scenes and order trouble, under /__sim, without a key."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from llmpod.sim.behavior import BadBehavior, merged
from llmpod.sim.serverless import Options
from llmpod.sim.wire import Exchange
from llmpod.sim.world import World

Answer = dict[str, Any]


class Control:
    """The control routes of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._routes: dict[tuple[str, str], Callable[[dict[str, Any]], Awaitable[Answer]]] = {
            ("GET", "/__sim/state"): self._state,
            ("GET", "/__sim/bill"): self._bill,
            ("GET", "/__sim/requests"): self._requests,
            ("GET", "/__sim/behavior"): self._behavior,
            ("POST", "/__sim/behavior"): self._behave,
            ("POST", "/__sim/faults"): self._fault,
            ("POST", "/__sim/advance"): self._advance,
            ("POST", "/__sim/kill"): self._kill,
            ("POST", "/__sim/endpoint"): self._endpoint,
            ("POST", "/__sim/reset"): self._reset,
        }

    async def handle(self, exchange: Exchange) -> None:
        """Answer one control call: 404 for an unknown one, 422 with the reason for a bad one."""
        request = exchange.request
        route = self._routes.get((request.method, request.path))
        if route is None:
            known = ", ".join(f"{method} {path}" for method, path in self._routes)
            await exchange.json(404, {"error": f"there are {known}"})
            return
        try:
            body = json.loads(request.body or b"{}")
            answer = await route(body)
        except (BadBehavior, ValueError, KeyError, TypeError, AttributeError) as error:
            await exchange.json(422, {"error": f"{type(error).__name__}: {error}"})
            return
        await exchange.json(200, answer)

    async def _state(self, _: dict[str, Any]) -> Answer:
        now = self._world.clock.now()
        pods = []
        for runner in self._world.runners.values():
            pod, container = runner.pod, runner.container
            facts = {
                "id": pod.id,
                "name": pod.name,
                "status": pod.status(now),
                "gpu": pod.gpu["id"] if pod.gpu else None,
                "gpu_count": pod.gpu["count"] if pod.gpu else 0,
                "cloud": pod.cloud,
                "data_center": pod.center,
                "config": pod.config,
                "created_at": pod.created_at,
                "terminated_at": pod.terminated_at,
                "usd_per_hour": pod.cost,
                "seconds": pod.seconds(now),
                "usd": pod.usd(now),
                "listening": container is not None,
                "server_pid": container.pid if container else None,
                "server_port": container.port if container else None,
                "model_requests": pod.requests,
            }
            pods.append(facts)
        endpoints = [
            {"id": e.id, "min": e.least, "max": e.most, **e.health(), "list": e.listed()["workers"]}
            for e in self._world.endpoints.values()
        ]
        return {"now": now, "pods": pods, "endpoints": endpoints}

    async def _bill(self, _: dict[str, Any]) -> Answer:
        now = self._world.clock.now()
        pods = {pod.id: pod.usd(now) for pod in self._world.pods}
        return {"pods": pods, "total_usd": sum(pods.values())}

    async def _requests(self, _: dict[str, Any]) -> Answer:
        return {"requests": [call.shown() for call in self._world.calls]}

    async def _behavior(self, _: dict[str, Any]) -> Answer:
        return asdict(self._world.behavior)

    async def _behave(self, body: dict[str, Any]) -> Answer:
        self._world.behavior = merged(self._world.behavior, body)
        return asdict(self._world.behavior)

    async def _fault(self, body: dict[str, Any]) -> Answer:
        """`{"op": "create", "fault": "created_then_500", "times": 1}`"""
        self._world.faults.add(str(body["op"]), str(body["fault"]), int(body.get("times", 1)))
        return {"waiting": len(self._world.faults)}

    async def _advance(self, body: dict[str, Any]) -> Answer:
        self._world.clock.advance(float(body["seconds"]))
        return {"now": self._world.clock.now()}

    async def _kill(self, body: dict[str, Any]) -> Answer:
        """`{"id": …}`: the model server of that pod dies; RunPod restarts the container."""
        await self._world.runners[str(body["id"])].kill()
        return {}

    async def _endpoint(self, body: dict[str, Any]) -> Answer:
        """A new serverless endpoint; with an `id`, changes to that one. Both take the options of serverless.py."""
        options = {name: value for name, value in body.items() if name != "id"}
        made = self._world.endpoints[str(body["id"])] if "id" in body else self._world.endpoint(Options())
        await made.change(options)
        return {"id": made.id, "key": made.key}

    async def _reset(self, _: dict[str, Any]) -> Answer:
        await self._world.reset()
        return {}
