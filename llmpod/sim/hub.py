"""Not a model registry: a fake Hugging Face hub below /hub, of models whose weights exist in their headers only.

It answers what a careful client needs: model info, ``config.json``, the index of shards, and Ranges of a weights file,
which it redirects to a CDN of another origin (``localhost`` instead of ``127.0.0.1``). Like the real one's, that CDN
refuses a request that carries a token. Weights beyond the header are zeros, sent for as long as somebody reads them.

Faults of ``llmpod.sim.faults`` are queued under the operation ``hub``, those of the CDN alone under ``cdn``.
"""

import asyncio
import re
from typing import Any

from llmpod.sim.faults import Fault, FaultQueue, parse
from llmpod.sim.hub_models import MODELS, SHA, Model
from llmpod.sim.wire import Exchange

TOKEN = "hf_simulated"  # noqa: S105 - of a fake account that may see everything
OUTSIDER = "hf_outsider"  # of one that was not let in anywhere
_ZEROS = bytes(256 * 1024)
_ONES = b"\xff" * 256 * 1024
_ON_THE_WAY = ("cut", "stall", "wrong", "whole")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class _Refusal(Exception):
    """An answer with a status and what the hub's `X-Error-Code` says."""

    def __init__(self, status: int, code: str = "") -> None:
        super().__init__(code)
        self.status = status
        self.code = code


class HubHost:
    """The handler of everything below /hub and /hub-cdn."""

    def __init__(self, faults: FaultQueue) -> None:
        self._faults = faults

    async def handle(self, exchange: Exchange) -> int:
        """Answer one request; the status that was sent, 0 for none."""
        text = self._faults.take("hub")
        fault = parse(text) if text else None
        if fault is not None and (status := await _fail(exchange, fault)) is not None:
            return status
        path = exchange.request.path
        try:
            if path.startswith("/hub-cdn/"):
                return await self._cdn(exchange, path.removeprefix("/hub-cdn/"))
            return await self._route(exchange, path.removeprefix("/hub/"))
        except _Refusal as no:
            return await _refuse(exchange, no.status, no.code)

    async def _route(self, exchange: Exchange, path: str) -> int:
        if path == "api/models":
            author = exchange.request.query.get("author", "")
            names = [name for name, model in MODELS.items() if not model.private]
            return await _json(exchange, [{"id": name} for name in names if name.startswith(f"{author}/")])
        if found := re.fullmatch(r"api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return await self._info(exchange, found[1], found[2] or "main")
        if found := re.fullmatch(r"([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return await self._file(exchange, found[1], found[2], name=found[3])
        raise _Refusal(404)

    async def _info(self, exchange: Exchange, repo: str, revision: str) -> int:
        model = _visible(exchange, repo, revision)
        sizes = exchange.request.query.get("blobs") == "true"
        entries = [model.entry(name) for name in model.files()]
        info: dict[str, Any] = {
            "id": repo,
            "sha": SHA,
            "gated": "manual" if model.gated else False,
            "siblings": entries if sizes else [{"rfilename": one["rfilename"]} for one in entries],
        }
        if model.tensors:
            info["safetensors"] = {"parameters": dict(model.tensors), "total": sum(model.tensors.values())}
        return await _json(exchange, info)

    async def _file(self, exchange: Exchange, repo: str, revision: str, *, name: str) -> int:
        model = _visible(exchange, repo, revision)
        if model.gated and _token(exchange) != TOKEN:
            raise _Refusal(403 if _token(exchange) else 401, "GatedRepo")
        if name not in model.files():
            raise _Refusal(404, "EntryNotFound")
        if not model.is_large(name):
            return await self._send(exchange, model, name, fault=None)
        port = exchange.request.headers.get("host", "").rpartition(":")[2]
        await exchange.reply(
            302, b"", [("location", f"http://localhost:{port}/hub-cdn/{repo}/{name}?signed=1")]
        )
        return 302

    async def _cdn(self, exchange: Exchange, path: str) -> int:
        """Bytes of a large file. A signed address takes no second kind of authorization (as S3 says it: 400)."""
        text = self._faults.take("cdn")
        fault = parse(text) if text else None
        if fault is not None and fault.kind not in _ON_THE_WAY:
            status = await _fail(exchange, fault)
            if status is not None:
                return status
        if "authorization" in exchange.request.headers:
            raise _Refusal(400)
        owner, name, *rest = path.split("/")
        return await self._send(exchange, MODELS[f"{owner}/{name}"], "/".join(rest), fault=fault)

    async def _send(self, exchange: Exchange, model: Model, name: str, *, fault: Fault | None) -> int:
        """The bytes that were asked for, as far as they come."""
        kind, size = fault.kind if fault else "", model.files()[name]
        ranged = model.ranges and kind != "whole"
        wanted = _RANGE.fullmatch(exchange.request.headers.get("range", "")) if ranged else None
        begin = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2] or size - 1), size - 1) + 1 if wanted else size
        partial = [("content-range", f"bytes {begin}-{end - 1}/{size}")] if wanted else []
        await exchange.start(206 if wanted else 200, [*partial, ("content-length", str(end - begin))])
        last = min(end, begin + int(fault.number)) if fault and kind in ("cut", "stall") else end
        head, fill = model.beginning(name), _ONES if kind == "wrong" else _ZEROS
        while begin < last and not exchange.gone:
            piece = (head[begin:] or fill)[: min(len(fill), last - begin)]
            await exchange.send(piece)
            begin += len(piece)
            await asyncio.sleep(0)  # a client that leaves must be noticed
        if kind == "stall":
            await exchange.left()
        exchange.complete = begin >= end
        return 206 if wanted else 200


def _visible(exchange: Exchange, repo: str, revision: str) -> Model:
    """The model; a private one does not exist for strangers."""
    token, model = _token(exchange), MODELS.get(repo)
    if token not in ("", TOKEN, OUTSIDER):
        raise _Refusal(401)
    if model is None or (model.private and token != TOKEN):
        raise _Refusal(404 if token else 401, "RepoNotFound")
    if revision not in ("main", "v1", SHA):
        raise _Refusal(404, "RevisionNotFound")
    return model


def _token(exchange: Exchange) -> str:
    return exchange.request.headers.get("authorization", "").partition(" ")[2]


async def _fail(exchange: Exchange, fault: Fault) -> int | None:
    """The status that went out, 0 for none; None: it is only late, or done already."""
    match fault.kind:
        case "slow":
            await asyncio.sleep(fault.number)
            return None
        case "hang":
            await exchange.left()
            return 0
        case "dropped" | "reset":
            exchange.reset()
            return 0
        case "garbage":
            await exchange.reply(200, b'{"siblings": \x00\xff', [("content-type", "application/json")])
            return 200
        case "html":
            await exchange.reply(502, b"<html>502 Bad Gateway</html>", [("content-type", "text/html")])
            return 502
        case kind:
            return await _refuse(exchange, int(kind) if kind.isdecimal() else 503, "")


async def _json(exchange: Exchange, value: Any) -> int:
    await exchange.json(200, value)
    return 200


async def _refuse(exchange: Exchange, status: int, code: str) -> int:
    headers = [("x-error-code", code)] if code else []
    await exchange.json(status, {"error": code or "refused"}, headers)
    return status
