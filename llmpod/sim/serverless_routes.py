"""Not the endpoints: the part of RunPod's REST API that shows them and sets their worker limits."""

from collections.abc import Awaitable, Callable
from typing import Any

from llmpod.sim.feed import Request
from llmpod.sim.front import parsed
from llmpod.sim.problems import Problem, invalid
from llmpod.sim.schema import integer, record
from llmpod.sim.serverless import Endpoint
from llmpod.sim.world import World

Answer = Callable[[], Awaitable[dict[str, Any]]]
_LIMITS = record({"min": integer(least=0), "max": integer(least=0), "idleTimeout": integer(least=1)})
_CHANGE = record({"workers": _LIMITS})
"""What the simulator lets be changed; RunPod lets more."""


def find(parts: list[str], request: Request, world: World) -> dict[str, tuple[str, Answer]]:
    """By method: the operation's name for faults, and how to do it. Empty: there is no such path."""
    match parts:
        case [name]:
            return {
                "GET": ("endpoint", lambda: _show(world, name)),
                "PATCH": ("limit", lambda: _change(world, name, request)),
            }
        case [name, "workers"]:
            return {"GET": ("workers", lambda: _workers(world, name))}
    return {}


def _found(world: World, name: str) -> Endpoint:
    if (endpoint := world.endpoints.get(name)) is None:
        raise Problem(404, "endpoint not found")
    return endpoint


async def _show(world: World, name: str) -> dict[str, Any]:
    return _found(world, name).document(world.invoke_url)


async def _workers(world: World, name: str) -> dict[str, Any]:
    return _found(world, name).listed()


async def _change(world: World, name: str, request: Request) -> dict[str, Any]:
    endpoint, body = _found(world, name), parsed(request.body)
    if errors := tuple(_CHANGE(body, "$")):
        raise invalid(*errors)
    limits = body.get("workers", {})
    least, most = int(limits.get("min", endpoint.least)), int(limits.get("max", endpoint.most))
    if least > most:
        raise invalid("$.workers.min: must not be greater than max")
    await endpoint.limit(least, most)
    return endpoint.document(world.invoke_url)
