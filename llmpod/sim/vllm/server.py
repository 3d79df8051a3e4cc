"""Serves a fake vLLM in a running event loop, from loading to its end. Not the app, and not the program.

The server is a uvicorn that lets the app cut its own connections and that leaves signals alone.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmpod.sim.vllm.app import vllm_app
from llmpod.sim.vllm.faults import TRANSPORT
from llmpod.sim.vllm.options import VllmOptions

_SLOWEST_END = 2  # seconds that an answer nobody reads may take after the others were aborted


async def serve(
    options: VllmOptions, address: tuple[str, int], *, over: asyncio.Event, on_ready: Callable[[str], None]
) -> None:
    """Loads, listens, calls `on_ready` with the URL, and ends in the real server's way once `over` is set.

    Port 0 means any free one. Raises OSError when the address cannot be had.
    """
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), options.load_seconds)
    if over.is_set():
        return
    app = vllm_app(options)
    with socket.create_server(address) as listener:
        host, port = listener.getsockname()[:2]
        server = Server(app, on_ready=lambda: on_ready(f"http://{host}:{port}"))
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        ended = asyncio.ensure_future(over.wait())
        try:
            await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:  # also when the caller is cancelled
            ended.cancel()
            app.drain()
            server.should_exit = True
            await serving


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
