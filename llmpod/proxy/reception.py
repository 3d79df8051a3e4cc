"""Not the door: takes the connections that are to be encrypted, so that they count there from their first moment.

A server of asyncio shows a connection to its protocol when the handshake is over. Until then, whoever said nothing
stood outside all limits: 600 of them held 32 MiB for a minute where 10 were allowed (measured).
"""

import asyncio
import contextlib
import socket
import ssl
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from llmpod.proxy.house import House
from llmpod.proxy.peer import unmapped
from llmpod.proxy.protocol import EdgeProtocol

PAUSE_SECONDS: Final = 0.1  # when the system gives no more sockets (EMFILE)


class _Newcomer(EdgeProtocol):
    """Gives its place at the door back when it can take one for itself, or by ``leave`` when it never does."""

    def expected_from(self, source: str) -> None:
        self._source: str | None = source

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in EdgeProtocol
        self.leave()
        super().connection_made(transport)

    def leave(self) -> None:
        if self._source is not None:
            self._house.door.leave(self._source)
            self._source = None


class Reception:
    """Takes connections from a listening socket until it is closed.

    Args:
        listener: the socket.
        tls: the server's side of the handshake.
        config: uvicorn's, as its protocols get it; ``state`` and ``app_state`` are the same.
    """

    def __init__(
        self,
        listener: socket.socket,
        tls: ssl.SSLContext,
        *,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        listener.setblocking(False)  # noqa: FBT003 - its signature
        self._listener = listener
        self._tls = tls
        self._config = config
        self._state = state
        self._app_state = app_state
        self._house: House = app_state["house"]
        self._loop = asyncio.get_running_loop()
        self._greetings: set[asyncio.Task[None]] = set()
        self._task = self._loop.create_task(self._run())

    def close(self) -> None:
        """Nobody else comes in, nor who has not said by now that he speaks TLS."""
        for task in (self._task, *self._greetings):
            task.cancel()
        self._listener.close()

    async def _run(self) -> None:
        while True:
            try:
                sock, address = await self._loop.sock_accept(self._listener)
            except OSError:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            source = unmapped(str(address[0]))
            if not self._house.door.enter(source):
                sock.close()
                continue
            newcomer = _Newcomer(self._config, self._state, self._app_state, self._loop)
            newcomer.expected_from(source)
            task = self._loop.create_task(self._greet(sock, newcomer))
            self._greetings.add(task)
            task.add_done_callback(self._greetings.discard)

    async def _greet(self, sock: socket.socket, newcomer: _Newcomer) -> None:
        """The handshake."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with contextlib.suppress(OSError):  # no TLS, not in time, or gone
                await self._loop.connect_accepted_socket(
                    lambda: newcomer,
                    sock,
                    ssl=self._tls,
                    ssl_handshake_timeout=self._house.sweep.deadlines.header,
                )
        finally:
            newcomer.leave()
