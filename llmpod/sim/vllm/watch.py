"""Who came, with what, and who left before the end. Not access control, and no answer of its own."""

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_KEPT = 50
CALL = "sim.call"


@dataclass
class Call:
    """One request while it is answered; the layers below leave notes for each other in it."""

    path: str
    method: str
    headers: dict[str, str]
    body: bytes
    complete: bool = False
    ended_by_us: bool = False
    abort_after: int | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it asks the simulator and not the model server: such calls never fail and are not counted."""
        return self.path.startswith("/__sim/")


@dataclass
class Stats:
    """What /__sim/stats tells."""

    requests: int = 0
    aborted: int = 0
    running: int = 0
    by_path: Counter[str] = field(default_factory=Counter)
    seen: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def as_json(self) -> dict[str, Any]:
        counts = {"requests": self.requests, "by_path": dict(self.by_path), "aborted": self.aborted}
        return {**counts, "running": self.running, "bodies": list(self.seen)}

    def reset(self) -> None:
        """Forgets what was; what runs goes on running."""
        self.requests = self.aborted = 0
        self.by_path.clear()
        self.seen.clear()


def bearer(header: str) -> str:
    """The key in an Authorization header, or nothing."""
    scheme, _, key = header.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def is_key(given: str, key: str | None) -> bool:
    """Whether somebody gave the key; without a key nobody can."""
    return key is not None and compare_digest(given.encode("utf-8", "replace"), key.encode())


class Watch:
    """The outermost layer: reads the body, keeps the statistics, and stops an answer nobody waits for."""

    def __init__(self, app: ASGIApp, stats: Callable[[], Stats], *, key: str | None) -> None:
        self._app = app
        self._stats = stats
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"a fake vLLM speaks HTTP only, not {scope['type']}")
        body = await _whole(receive)
        if body is None:
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        call = Call(scope["path"], scope["method"], headers, body)
        if call.is_ours:
            await self._answer(call, scope, receive=receive, send=send)
            return
        stats = self._stats()
        self._note(stats, call)
        stats.running += 1
        try:
            await self._answer(call, scope, receive=receive, send=send)
        finally:
            if not call.complete:
                stats.running -= 1
                stats.aborted += not call.ended_by_us

    async def _answer(self, call: Call, scope: Scope, *, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                call.complete = True
                # here and not later: who has the whole answer may ask for the statistics at once
                self._stats().running -= not call.is_ours

        answer = asyncio.ensure_future(_run(self._app, {**scope, CALL: call}, _replay(call.body), noting))
        gone = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() and call.complete:
                await answer
        finally:
            answer.cancel()
            gone.cancel()
            await asyncio.wait({answer, gone})
        if not answer.cancelled():
            answer.result()  # raises what the answer raised

    def _note(self, stats: Stats, call: Call) -> None:
        stats.requests += 1
        stats.by_path[call.path] += 1
        headers = dict(call.headers)
        for name in {"authorization", "x-api-key"} & headers.keys():
            given = bearer(headers[name]) or headers[name]
            headers[name] = "(the key)" if is_key(given, self._key) else "(not the key)"
        try:
            body = json.loads(call.body) if call.body else None
        except (ValueError, RecursionError):
            body = call.body.decode("utf-8", "replace")
        stats.seen.append({"method": call.method, "path": call.path, "headers": headers, "body": body})


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def _replay(body: bytes) -> Receive:
    messages = iter(({"type": "http.request", "body": body, "more_body": False},))

    async def receive() -> Message:
        if (message := next(messages, None)) is not None:
            return message
        await asyncio.Event().wait()  # leaving is the watch's business: it cancels
        raise AssertionError("an event that nobody sets was set")

    return receive


async def _whole(receive: Receive) -> bytes | None:
    """The whole body; None when the client left while it sent it."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
