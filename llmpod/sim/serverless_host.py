"""Not the API that manages endpoints: the host that invokes them, `https://api.runpod.ai/v2/{id}/…`.

`/health` and the OpenAI route of the vLLM worker. Whoever has no key of the endpoint or of the account gets 401, an id
that is unknown 404. The fault `invoke` is a status for the next call, or `dropped`; see faults.py.
"""

import asyncio
import hmac

from llmpod.sim.feed import Request
from llmpod.sim.hosts import forwarded, relay
from llmpod.sim.serverless import Endpoint
from llmpod.sim.wire import Exchange
from llmpod.sim.world import Call, World

_PATIENCE = 600.0
_NO_KEY = {"error": {"message": "Unauthorized", "type": "authentication_error"}}


class InvokeHost:
    """The endpoints of a world. `handle` is a handler for `wire.Server`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def handle(self, exchange: Exchange) -> None:
        """Answer one call."""
        parts = exchange.request.path.split("/")
        endpoint = self._world.endpoints.get(parts[2]) if len(parts) > 3 else None
        fault = self._world.faults.take("invoke")
        if fault == "dropped":
            self._log(exchange, 0)
            exchange.reset()
        elif fault:
            headers = [("Retry-After", "7")] if fault == "429" else []
            await self._say(exchange, int(fault), {"error": "as ordered"}, headers)
        elif endpoint is None:
            await self._say(exchange, 404, {"error": "endpoint not found"})
        elif endpoint.options.refuses or not self._may(exchange.request, endpoint):
            await self._say(exchange, 401, _NO_KEY)
        else:
            await self._answer(exchange, endpoint, "/" + "/".join(parts[3:]))

    async def _answer(self, exchange: Exchange, endpoint: Endpoint, path: str) -> None:
        if path == "/health" and endpoint.options.kind == "QUEUE":
            await self._say(exchange, 200, endpoint.health())
        elif path.startswith("/openai/v1/"):
            self._log(exchange, 200)
            await _invoke(exchange, endpoint, path.removeprefix("/openai"))
        else:
            await self._say(exchange, 404, {"error": "no such operation"})

    def _may(self, request: Request, endpoint: Endpoint) -> bool:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        return any(hmac.compare_digest(given, key.encode()) for key in (endpoint.key, self._world.key))

    async def _say(
        self, exchange: Exchange, status: int, body: object, headers: "list[tuple[str, str]] | None" = None
    ) -> None:
        self._log(exchange, status)
        await exchange.json(status, body, headers or [])

    def _log(self, exchange: Exchange, status: int) -> None:
        request = exchange.request
        self._world.calls.append(Call(request.method, request.path, status, self._world.clock.now()))


async def _invoke(exchange: Exchange, endpoint: Endpoint, target: str) -> None:
    async with endpoint.turn() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(forwarded(exchange.request, target, {}))
            await relay(exchange, reader, _PATIENCE)
        finally:
            writer.transport.abort()
