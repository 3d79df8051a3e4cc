"""Not a web framework: HTTP/1.1 on asyncio, for servers that must be able to misbehave byte by byte.

A handler gets an `Exchange`: the request, whole, and the way back, which it may also cut or fill with garbage.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Self

from llmpod.sim.feed import BadMessage, Feed, Request

__all__ = ["Exchange", "Handler", "Headers", "Request", "Server"]

Headers = Sequence[tuple[str, str]]
_NO_BODY = {204, 304}
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with zero seconds: close(2) sends RST instead of FIN


def head(status: int, headers: Headers) -> bytes:
    """Status line and headers, as they go out."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:  # 524 is Cloudflare's own
        reason = ""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Exchange:
    """One request and the way back to its client."""

    def __init__(self, request: Request, connection: "_Connection") -> None:
        self.request = request
        self.begun = False
        self.complete = False
        self._connection = connection
        self._chunked = False

    @property
    def gone(self) -> bool:
        """Whether the client has left."""
        return self._connection.lost.is_set()

    async def left(self) -> None:
        """Returns when the client has left."""
        await self._connection.lost.wait()

    async def reply(self, status: int, body: bytes = b"", headers: Headers = ()) -> None:
        """A whole answer with its length."""
        extra = list(headers)
        if status not in _NO_BODY:
            extra.append(("content-length", str(len(body))))
        await self.start(status, extra)
        if body and self.request.method != "HEAD":
            await self._connection.write(body)
        self.complete = True

    async def json(self, status: int, value: Any, headers: Headers = ()) -> None:
        """A whole answer of JSON, compact as real servers send it."""
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        names = {name.lower() for name, _ in headers}
        kind = () if "content-type" in names else (("content-type", "application/json"),)
        await self.reply(status, body, [*kind, *headers])

    async def start(self, status: int, headers: Headers = (), *, chunked: bool = False) -> None:
        """The head of an answer; with `chunked`, a body of unknown length follows by `send` and `end`."""
        dated = any(name == "date" for name, _ in headers)
        lines = [*headers] if dated else [("date", formatdate(usegmt=True)), *headers]
        if chunked:
            lines.append(("transfer-encoding", "chunked"))
        if self.request.closes:
            lines.append(("connection", "close"))
        self.begun, self._chunked = True, chunked
        await self._connection.write(head(status, lines))

    async def send(self, data: bytes) -> None:
        """One piece of the body, at once."""
        if self._chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        await self._connection.write(data)

    async def end(self) -> None:
        """The end of the body, as HTTP frames it."""
        if self._chunked:
            await self._connection.write(b"0\r\n\r\n")
        self.complete = True

    def close(self) -> None:
        """Close the connection in order (FIN), in the middle of an answer if need be."""
        self.complete = True
        self._connection.close()

    def reset(self) -> None:
        """Cut the connection (RST); what was not sent yet is lost."""
        self.complete = True
        self._connection.reset()


Handler = Callable[[Exchange], Awaitable[None]]


class _Connection(asyncio.Protocol):
    def __init__(self, server: "Server") -> None:
        self.lost = asyncio.Event()
        self._server = server
        self._feed = Feed()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()

    # --- asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._feed.buffer += data
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio.Protocol
        self.lost.set()
        self._flowing.set()
        self._server.connections.discard(self)
        if self._task and self._server.cancels:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._flowing.clear()

    def resume_writing(self) -> None:
        self._flowing.set()

    # --- for Exchange and Server
    async def write(self, data: bytes) -> None:
        await self._flowing.wait()
        if self._transport and not self.lost.is_set():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def reset(self) -> None:
        if self._transport is None or self.lost.is_set():
            return
        connected = self._transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._transport:
            self._transport.abort()

    # --- one request after the other
    def _next(self) -> None:
        if self._task or self.lost.is_set() or self._transport is None:
            return
        try:
            request = self._feed.take()
        except BadMessage as bad:
            self._transport.write(head(bad.status, [("content-length", "0"), ("connection", "close")]))
            self._transport.close()
            return
        if request is None:
            if self._feed.wants_continue():
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        self._task = asyncio.create_task(self._run(Exchange(request, self)))

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._server.handler(exchange)
        finally:
            self._task = None
            if not exchange.complete:
                self.reset()
            elif exchange.request.closes:
                self.close()
            else:
                self._next()


class Server:
    """A listening socket on the loopback interface and its connections. `start` opens it, `close` is idempotent.

    Args:
        handler: answers one exchange; an exception of its own resets the connection.
        cancels: whether a handler is cancelled when its client leaves (an engine is, a database write is not).
    """

    def __init__(self, handler: Handler, *, cancels: bool = True) -> None:
        self.handler = handler
        self.cancels = cancels
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> Self:
        """Listen. Raises OSError when the address is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), host, port, backlog=1024)
        return self

    @property
    def port(self) -> int:
        """The port that was chosen."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and cut every connection."""
        if self._server:
            self._server.close()
        for connection in list(self.connections):
            await connection.stop()
