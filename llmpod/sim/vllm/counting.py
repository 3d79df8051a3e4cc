"""Not the engine's figures: counts HTTP requests as prometheus-fastapi-instrumentator does inside vLLM.

It stands inside the key check, as there: a request that is refused with 401 is not counted. Recorded from a real
server: statuses are grouped, and a path or method that is none is `none`.
"""

from collections import Counter
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmpod.sim.vllm.watch import CALL, Call

_EXCLUDED = ("/metrics", "/health", "/load", "/ping", "/version")

Requests = Counter[tuple[str, str, str]]
"""Requests by handler, method and group of statuses."""


class Counting:
    """The layer that counts what passes.

    Args:
        app: the next layer.
        routes: paths and their methods.
        requests: is counted in.
    """

    def __init__(self, app: ASGIApp, routes: Mapping[str, Mapping[str, object]], requests: Requests) -> None:
        self._app = app
        self._routes = routes
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call: Call = scope[CALL]
        if call.is_ours or call.path in _EXCLUDED:
            await self._app(scope, receive, send)
            return
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._count(call, status)
                status = 0
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            if status:  # it was cut
                self._count(call, status)

    def _count(self, call: Call, status: int) -> None:
        known = call.method in self._routes.get(call.path, ())
        self._requests[call.path if known else "none", call.method, f"{status // 100}xx"] += 1
