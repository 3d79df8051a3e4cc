"""Not uvicorn's command line: runs the proxy as one process, from the bound socket to the drained end."""

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import uvicorn

from llmpod.config import ProxySettings, environment, proxy_settings
from llmpod.errors import ConfigError, LlmpodError, PortTaken
from llmpod.nocore import leave_no_core
from llmpod.observe import Log, open_log
from llmpod.proxy import exposure
from llmpod.proxy.app import Front
from llmpod.proxy.bounds import hold_standard_files
from llmpod.proxy.protocol import EdgeProtocol
from llmpod.proxy.reception import Reception
from llmpod.veil import Veil

BACKLOG: Final = 2048
SEND_BUFFER: Final = (
    128 * 2**10
)  # of a client's socket; left alone it grows to 4 MiB for one that never reads
POLL_SECONDS: Final = 0.05
LAST_WORDS_SECONDS: Final = 0.7  # for the error event of a stream that outlasts the grace


class _Server(uvicorn.Server):
    """uvicorn's server that ends with our exit code, not with the signal that asked it to."""

    def __init__(self, config: uvicorn.Config, front: Front, *, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self.servers = []  # uvicorn has none yet, and we may be told to stop before it has
        self._front = front
        self._stopping = stopping
        self._asked_at = float("inf")
        self._reception: Reception | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the lifespan, then the door; that of TLS is our own."""
        front, ours = self._front, self._front.certificates is not None
        await super().startup([] if ours else sockets)
        if front.certificates is not None and sockets:
            self._reception = Reception(
                sockets[0],
                front.certificates.context,
                config=self.config,
                state=self.server_state,
                app_state=self.lifespan.state,
            )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM or SIGINT: drain; again: now. SIGHUP: read settings, keys and certificates anew."""
        loop = asyncio.get_running_loop()
        handlers = dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._asked)
        handlers[signal.SIGHUP] = self._front.reload
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let answers finish within the grace, tell the rest, then close everything."""
        self._close_doors()
        for listener in sockets or ():
            listener.close()
        state = self.server_state
        deadline = self._asked_at + self._front.drain_seconds
        while (state.connections or state.tasks) and not self.force_exit and time.monotonic() < deadline:  # noqa: ASYNC110 - as uvicorn
            await asyncio.sleep(POLL_SECONDS)
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        for connection in list(state.connections):
            connection.interrupt()  # type: ignore[union-attr]  # ours, not uvicorn's
        if late := list(state.tasks):
            for task in late:
                task.cancel()
            await asyncio.wait(late, timeout=LAST_WORDS_SECONDS)
        while state.connections and not self.force_exit and time.monotonic() < deadline:  # noqa: ASYNC110 - as above
            await asyncio.sleep(POLL_SECONDS)
        await self.lifespan.shutdown()

    def _asked(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        if not self.force_exit:
            self._stopping()
        self._close_doors()

    def _close_doors(self) -> None:
        """Nobody new comes in, and whoever asks is told; at once, not when the server's loop looks next."""
        self._asked_at = min(self._asked_at, time.monotonic())
        for server in self.servers:
            server.close()
        if self._reception is not None:
            self._reception.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        self._front.close_doors()


def bind(settings: ProxySettings) -> socket.socket:
    """The listening socket.

    Raises:
        PortTaken: somebody else has the address.
        ConfigError: the address cannot be used at all.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
    except OSError as e:
        raise ConfigError(f"Cannot listen on {settings.host}: {e.strerror or e}.") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as e:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        if e.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"{where} is in use by another program.",
                hint="Stop it, or choose another port (PORT=… or --port …).",
            ) from None
        raise ConfigError(f"Cannot listen on {where}: {e.strerror or e}.") from None
    return listener


def _config(front: Front) -> uvicorn.Config:
    config = uvicorn.Config(
        front,
        http=EdgeProtocol,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    config.load()
    return config


def main(
    settings: ProxySettings,
    *,
    again: Callable[[], ProxySettings],
    stopping: Callable[[], None] = lambda: None,
) -> int:
    """Serve until told to stop; returns the exit code. Every failure is one line on standard error.

    Args:
        settings: to begin with.
        again: reads them anew; raises LlmpodError.
        stopping: called once, when it is told to stop.
    """
    log = open_log(settings.log_level, veil=Veil([settings.endpoint_key]))
    try:
        return _run(settings, log, again, stopping)
    except LlmpodError as e:
        sys.stderr.write(f"{e}\n")
        return e.exit_code
    finally:
        log.close()


def on_demand(read: Callable[[], ProxySettings], stopping: Callable[[], None]) -> int:
    """As :func:`main`, by settings that are read by whoever makes them.

    Raises:
        LlmpodError: they cannot be read.
    """
    return main(read(), again=read, stopping=stopping)


def _run(
    settings: ProxySettings, log: Log, again: Callable[[], ProxySettings], stopping: Callable[[], None]
) -> int:
    exposure.check(settings, log)
    front = Front(settings, log, again=again)
    config = _config(front)
    listener = bind(settings)
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.use_https else "http"

    def told() -> None:
        log.info("stopping", grace_seconds=front.drain_seconds)
        stopping()

    server = _Server(config, front, stopping=told)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it is served: one that comes early must end nothing
    log.info(
        "listening", url=f"{scheme}://{host}:{port}/v1", endpoint=settings.endpoint, state=settings.state_file
    )
    _spare_the_collector()
    server.run([listener])
    log.info("stopped")
    return 0 if server.started else 1


def _spare_the_collector() -> None:
    """Reference counting frees what a request leaves; full collections over the cache cost 60 ms p99 (measured)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def run(arguments: Sequence[str], *, home: Path, environ: Mapping[str, str] | None = None) -> int:
    """From the command line and the environment to the exit code.

    Args:
        arguments: without the program's name.
        home: where ``pod_state.json`` is looked for when nothing names a model server.
        environ: by default the process's own.
    """
    hold_standard_files()
    leave_no_core()
    variables = environment() if environ is None else environ

    def read() -> ProxySettings:
        return proxy_settings(arguments, variables, home=home)

    try:
        settings = read()
    except LlmpodError as e:
        sys.stderr.write(f"{e}\n")
        return e.exit_code
    return main(settings, again=read)
