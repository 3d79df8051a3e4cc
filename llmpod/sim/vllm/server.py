"""A uvicorn that lets the app cut its own connections, and that leaves signals alone. Not the app."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmpod.sim.vllm.faults import TRANSPORT

_SLOWEST_END = 2  # seconds that an answer nobody reads may take after the others were aborted


class CuttableProtocol(HttpToolsProtocol):
    """Hands the transport of its connection to the app, as `scope["state"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self.app_state = {**self.app_state, TRANSPORT: transport}


class Server(uvicorn.Server):
    """Serves until `should_exit` is set. Calls `on_ready` once it listens; whoever started it handles signals."""

    def __init__(self, app: ASGIApp, *, on_ready: Callable[[], None] = lambda: None) -> None:
        config = uvicorn.Config(
            app,
            http=CuttableProtocol,
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            timeout_graceful_shutdown=_SLOWEST_END,
        )
        super().__init__(config)
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield

    async def startup(self, *args: object, **kwargs: object) -> None:
        """As uvicorn's, and then tells that it listens."""
        await super().startup(*args, **kwargs)  # type: ignore[arg-type]  # whatever uvicorn passes to itself
        self._on_ready()
