"""Failures on demand, for one request by header or for the next few by order. Not random ones.

A chunk is one piece of a streamed body; of an answer that comes whole, N counts bytes instead (abort@N: tokens).
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmpod.sim.vllm.http import DONE, Json, Refusal
from llmpod.sim.vllm.watch import CALL, Call

HEADER = "x-sim-fault"
TRANSPORT = "sim.transport"
_PLAIN = ("500", "503", "garbage", "html", "reset")
_AT = ("cut", "stall", "clean-end", "abort", "error-event")
_DEAD_ENGINE = "EngineCore encountered an issue. See stack trace (above) for the root cause."
# spelled with spaces: in the recording this one event comes from another serializer than its neighbours
_ERROR_EVENT = (
    f'data: {{"error": {{"message": "{_DEAD_ENGINE}", "type": "InternalServerError", '
    '"param": null, "code": 500}}\n\n'
).encode()
_HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_GARBAGE = b'{"id":"chatcmpl-\x00\xff\xfe not JSON'


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and after how many chunks or seconds."""

    kind: str
    at: float = 0

    @classmethod
    def of(cls, text: str) -> "Fault":
        """`cut@3`, `slow-first=0.5`, `503` … Raises ValueError for what is none of them."""
        kind, at, count = text.strip().partition("@")
        if kind in _AT and at:
            return cls(kind, _not_negative(int(count)))
        kind, equals, seconds = text.strip().partition("=")
        if kind == "slow-first" and equals:
            return cls(kind, _not_negative(float(seconds)))
        if kind in _PLAIN and not equals:
            return cls(kind)
        raise ValueError(f"no such fault: {text!r}")


def _not_negative(number: float) -> float:
    if not number >= 0:
        raise ValueError(f"a fault happens at 0 or later, not at {number}")
    return number


@dataclass(frozen=True)
class Order:
    """A fault for coming requests: all POSTs, or whatever comes to exactly one path."""

    fault: Fault
    path: str | None = None

    def is_for(self, call: Call) -> bool:
        return call.path == self.path if self.path else call.method == "POST"


@dataclass
class Orders:
    """The faults that wait for a request, in order."""

    waiting: deque[Order] = field(default_factory=deque)

    def add(self, body: Mapping[str, Any]) -> None:
        """`{"fault": "cut@3", "times": 2, "path": "/v1/models"}`, the last two optional. Raises ValueError."""
        fault, times, path = Fault.of(str(body.get("fault"))), body.get("times", 1), body.get("path")
        if not isinstance(times, int) or not 1 <= times <= 10_000:
            raise ValueError("times is a whole number from 1 to 10000")
        self.waiting.extend([Order(fault, path)] * times)

    def take(self, call: Call) -> Fault | None:
        """The fault for a request: its own header's, else the first order that is for it, which is then used up.

        Raises ValueError for a header that names no fault.
        """
        if header := call.headers.get(HEADER):
            return Fault.of(header)
        order = next((order for order in self.waiting if order.is_for(call)), None)
        if order is None:
            return None
        self.waiting.remove(order)
        return order.fault


class Faults:
    """The layer that makes requests fail."""

    def __init__(self, app: ASGIApp, orders: Orders) -> None:
        self._app = app
        self._orders = orders

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call: Call = scope[CALL]
        if call.is_ours:
            await self._app(scope, receive, send)
            return
        try:
            fault = self._orders.take(call)
        except ValueError as error:
            await Json({"error": str(error)}, 400)(scope, receive, send)
            return
        match fault:
            case None:
                await self._app(scope, receive, send)
            case Fault(kind="slow-first", at=seconds):
                await asyncio.sleep(seconds)
                await self._app(scope, receive, send)
            case Fault(kind="abort", at=count):
                call.abort_after = int(count)
                await self._app(scope, receive, send)
            case Fault(kind="reset"):
                await _hang_up(scope, reset=True)
            case Fault(kind=kind) if kind in _PLAIN:
                await _broken(kind)(scope, receive, send)
            case _:
                await _Interrupted(fault, scope, receive=receive, send=send).run(self._app)


class _Over(Exception):
    """Tells the endpoint that its answer has ended, whatever it still wanted to say."""


class _Interrupted:
    """One answer that does not go as the endpoint thinks."""

    def __init__(self, fault: Fault, scope: Scope, *, receive: Receive, send: Send) -> None:
        self._fault = fault
        self._scope = scope
        self._receive = receive
        self._send = send
        self._held: Message | None = None
        self._left = int(fault.at)

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self._receive, self._forward)
        except _Over:
            await self._end()

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._held:
            await self._truncate(self._held, message)
        elif self._left > 0 and message.get("more_body"):
            self._left -= 1
            await self._send(message)
        else:
            raise _Over

    async def _begin(self, message: Message) -> None:
        """The start of a stream goes out at once; that of a whole answer waits, since its length may change."""
        if any(name == b"content-length" for name, _ in message["headers"]):
            self._held = message
        else:
            await self._send(message)

    async def _truncate(self, start: Message, message: Message) -> None:
        if self._fault.kind == "error-event":
            await _broken("500")(self._scope, self._receive, self._send)
            return
        if self._fault.kind == "clean-end":
            start = {**start, "headers": [kept for kept in start["headers"] if kept[0] != b"content-length"]}
        await self._send(start)
        await self._send({**message, "body": message.get("body", b"")[: self._left], "more_body": True})
        raise _Over

    async def _end(self) -> None:
        match self._fault.kind:
            case "cut":
                await _hang_up(self._scope)
            case "stall":
                await asyncio.Event().wait()  # until the client leaves, which cancels this
            case kind:
                last = _ERROR_EVENT + DONE if kind == "error-event" else b""
                await self._send({"type": "http.response.body", "body": last, "more_body": False})


def _broken(kind: str) -> ASGIApp:
    match kind:
        case "html":
            return Response(_HTML, 502, media_type="text/html")
        case "garbage":
            return Response(_GARBAGE, 200, media_type="application/json")
        case "500":
            refusal = Refusal(500, _DEAD_ENGINE, kind="InternalServerError")
        case _:
            refusal = Refusal(503, "The server is overloaded. Please retry.", kind="ServiceUnavailableError")
    return Json(refusal.body, refusal.status)


async def _hang_up(scope: Scope, *, reset: bool = False) -> None:
    """Ends the connection under the answer, with RST instead of FIN if so asked, and never returns.

    Raises RuntimeError when the server is not that of server.py, which hands the transport over.
    """
    transport = scope.get("state", {}).get(TRANSPORT)
    if transport is None:
        raise RuntimeError("this fault needs the server of llmpod.sim.vllm.server")
    call: Call = scope[CALL]
    call.ended_by_us = True
    if reset:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
    await asyncio.Event().wait()  # the watch sees the connection go, and cancels
