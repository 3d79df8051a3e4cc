"""Not a cache: RunPod's HTTP proxy host, `{id}-{port}.proxy.runpod.net`, which passes bytes through as they come.

On this machine it is reached by path, `/{id}-{port}/v1/…`, or by that Host header. 404: not declared, or no such pod.
502: nobody listens in there. 524: no first byte in time. It knows no key, and what a pod cuts, it cuts.
"""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress

from llmpod.sim.feed import Request
from llmpod.sim.runner import Runner
from llmpod.sim.wire import Exchange
from llmpod.sim.world import World

_NAME = re.compile(r"([a-z0-9]+)-(\d{1,5})")
_HOST = re.compile(r"([a-z0-9]+)-(\d{1,5})\.proxy\.runpod\.net(?::\d+)?", re.IGNORECASE)
_HOP = {
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
}
_LINE = 64 * 1024
_MODEL_PATHS = ("/v1/",)


class _PodCut(Exception):
    """The pod hung up in the middle of its answer."""


class ProxyHost:
    """The proxy of all pods of a world. `handle` is a handler for `wire.Server`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def handle(self, exchange: Exchange) -> None:
        """Pass one request to its pod, and the answer back."""
        runner, port, target = self._addressed(exchange.request)
        if runner is None:
            await _page(exchange, 404, "Not Found")
            return
        if (inner := runner.reaches(port)) is None:
            await _page(exchange, 502, "Bad Gateway")
            return
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", inner, limit=_LINE)
        except OSError:
            await _page(exchange, 502, "Bad Gateway")
            return
        try:
            request = exchange.request
            faulty = target.startswith(_MODEL_PATHS) and request.method == "POST"
            fault = self._world.faults.take("model") if faulty else None
            writer.write(forwarded(request, target, {"x-sim-fault": fault} if fault else {}))
            await relay(exchange, reader, runner.pod.behavior.first_byte_seconds)
        finally:
            writer.transport.abort()  # the client may have left in the middle: the pod must notice
            await self._aged(runner, target)

    def _addressed(self, request: Request) -> tuple[Runner | None, int, str]:
        """(pod, its port, the target inside); no pod for a name that is unknown, gone or not declared as http."""
        found = _HOST.fullmatch(request.headers.get("host", ""))
        target = request.target
        if found is None:
            name, slash, rest = target.removeprefix("/").partition("/")
            name, mark, query = name.partition("?")
            found, target = _NAME.fullmatch(name), f"/{rest}" if slash else f"/{mark}{query}"
        if found is None:
            return None, 0, target
        runner, port = self._world.runners.get(found[1].lower()), int(found[2])
        now = self._world.clock.now()
        known = runner is not None and runner.pod.running(now) and now >= runner.pod.visible_at
        if runner is None or not known or port not in runner.pod.declared("http"):
            return None, 0, target
        return runner, port, target

    async def _aged(self, runner: Runner, target: str) -> None:
        if not target.startswith(_MODEL_PATHS) or target.startswith("/v1/models"):
            return
        runner.pod.requests += 1
        limit = runner.pod.behavior.die_after
        if limit and runner.pod.requests % limit == 0:
            await runner.kill()


def forwarded(request: Request, target: str, more: Mapping[str, str]) -> bytes:
    """A request as it goes on to the server inside, to another target and with more headers."""
    lines = [f"{request.method} {target} HTTP/1.1"]
    headers = {name: value for name, value in request.headers.items() if name not in _HOP}
    if request.body or "content-length" in headers or "transfer-encoding" in request.headers:
        headers["content-length"] = str(len(request.body))
    headers = {**headers, **more, "connection": "close"}
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + request.body


async def relay(exchange: Exchange, reader: asyncio.StreamReader, patience: float) -> None:
    """The answer of the server inside, as it comes; 524 when its head is not there after so many seconds."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), patience)
        status, headers = _head(head)
    except TimeoutError:
        await _page(exchange, 524, "A timeout occurred")
        return
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        await _page(exchange, 502, "Bad Gateway")
        return
    try:
        await _body(exchange, reader, status, headers)
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, _PodCut):
        exchange.reset()


def _head(data: bytes) -> tuple[int, list[tuple[str, str]]]:
    """Raises ValueError for what is not an HTTP answer."""
    first, *lines = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"not HTTP: {first[:40]}")
    pairs = [line.partition(":") for line in lines]
    return int(rest[:3]), [(name.lower(), value.strip()) for name, _, value in pairs]


async def _body(
    exchange: Exchange, reader: asyncio.StreamReader, status: int, headers: list[tuple[str, str]]
) -> None:
    """The body in the pod's own framing, piece by piece as it comes."""
    names = dict(headers)
    kept = [(name, value) for name, value in headers if name not in _HOP and name != "date"]
    if "chunked" in names.get("transfer-encoding", ""):
        await exchange.start(status, kept, chunked=True)
        while size := int((await reader.readline()).split(b";")[0] or b"x", 16):
            await exchange.send(await reader.readexactly(size))
            await reader.readexactly(2)
        await exchange.end()
        return
    left = int(names.get("content-length", "0"))
    await exchange.start(status, kept)
    while left and exchange.request.method != "HEAD":
        piece = await reader.read(min(left, _LINE))
        if not piece:
            raise _PodCut
        left -= len(piece)
        await exchange.send(piece)
    await exchange.end()


async def _page(exchange: Exchange, status: int, words: str) -> None:
    """Cloudflare's own answer, not the pod's."""
    body = f"<html><head><title>{status} {words}</title></head><body><h1>{status} {words}</h1></body></html>"
    with suppress(OSError):
        await exchange.reply(status, body.encode(), [("content-type", "text/html"), ("server", "cloudflare")])
