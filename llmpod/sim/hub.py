"""Not a model registry: a fake Hugging Face hub below /hub, of models whose weights exist in their headers only.

It answers what a careful client needs: model info, ``config.json``, the index of shards, and Ranges of a weights file,
which it redirects to a CDN of another origin (``localhost`` instead of ``127.0.0.1``). Like the real one's, that CDN
refuses a request that carries a token. Weights beyond the header are zeros, sent for as long as somebody reads them.

Faults of ``llmpod.sim.faults`` are queued under the operation ``hub``.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmpod.sim.faults import Fault, FaultQueue, parse
from llmpod.sim.wire import Exchange

TOKEN = "hf_simulated"  # noqa: S105 - of a fake account that may see everything
OUTSIDER = "hf_outsider"  # of one that was not let in anywhere
_SHA = "5f0b02c75b57c5855da9ae460ce51323ea669d8a"
_WIDTH = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I32": 4, "U8": 1}
_ZEROS = bytes(256 * 1024)
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class Model:
    """One repository. ``tensors`` counts elements by dtype; ``shards`` 0 means a single file of weights."""

    config: Mapping[str, Any]
    tensors: Mapping[str, int]
    shards: int = 0
    gated: bool = False
    private: bool = False
    ranges: bool = True
    padding: int = 0
    extra: Mapping[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(_WIDTH[dtype] * count for dtype, count in self.tensors.items())

    def header(self) -> bytes:
        """The beginning of its safetensors file."""
        place, entries = 0, {}
        for dtype, count in self.tensors.items():
            end = place + _WIDTH[dtype] * count
            entries[f"model.{dtype}"] = {"dtype": dtype, "shape": [count], "data_offsets": [place, end]}
            place = end
        text = json.dumps({"__metadata__": {"format": "pt", "pad": "x" * self.padding}, **entries}).encode()
        return len(text).to_bytes(8, "little") + text

    def index(self) -> dict[str, Any]:
        names = [f"model-{n + 1:05}-of-{self.shards:05}.safetensors" for n in range(self.shards)]
        return {
            "metadata": {"total_size": self.size},
            "weight_map": {f"layer.{n}": name for n, name in enumerate(names)},
        }

    def files(self) -> dict[str, int]:
        """Names and sizes."""
        small = {"config.json": len(json.dumps(self.config)), "tokenizer.json": 7_000_000, **self.extra}
        if not self.tensors:
            return small
        if not self.shards:
            return {**small, "model.safetensors": len(self.header()) + self.size}
        share = self.size // self.shards
        shards = dict.fromkeys(self.index()["weight_map"].values(), share)
        return {**small, **shards, "model.safetensors.index.json": 30_000}


def _llama(
    layers: int, kv_heads: int, *, heads: int = 32, head_dim: int = 128, **more: Any
) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": heads * 128,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": 32768,
        "torch_dtype": "bfloat16",
        **more,
    }


_TINY = Model(_llama(2, 2, heads=4, head_dim=16, max_position_embeddings=2048), {"BF16": 1_000_000})
MODELS: Mapping[str, Model] = {
    "org/tiny-chat": _TINY,
    "demo/tiny-chat": _TINY,
    "org/seven": Model(_llama(32, 8), {"BF16": 7_600_000_000}, shards=4),
    "org/seven-single": Model(_llama(32, 8), {"BF16": 7_600_000_000}),
    "org/seven-f32": Model(_llama(32, 8, torch_dtype="float32"), {"F32": 7_600_000_000}, shards=6),
    "org/f32-single": Model(_llama(32, 8, torch_dtype="float32"), {"F32": 7_600_000_000}),
    "org/seven-fp8": Model(
        _llama(32, 8, quantization_config={"quant_method": "fp8"}), {"F8_E4M3": 7_600_000_000, "F32": 1000}
    ),
    "org/thirty-two": Model(_llama(64, 8, heads=64), {"BF16": 32_800_000_000}, shards=17),
    "org/seventy": Model(_llama(80, 8, heads=64), {"BF16": 70_600_000_000}, shards=30),
    "org/colossus": Model(_llama(200, 8, heads=128), {"BF16": 2_000_000_000_000}, shards=400),
    "org/vision": Model(
        {"model_type": "odd", "vision_config": {}, "text_config": _llama(32, 8)}, {"BF16": 8_000_000_000}
    ),
    "org/twice": Model(
        _llama(32, 8), {"BF16": 7_000_000_000}, 3, extra={"consolidated.safetensors": 14_000_000_000}
    ),
    "org/long-header": Model(_llama(32, 8), {"BF16": 7_000_000_000}, padding=300_000),
    "org/no-ranges": Model(_llama(32, 8), {"BF16": 7_000_000_000}, ranges=False),
    "org/no-weights": Model(_llama(2, 2), {}, extra={"model.Q4_K_M.gguf": 4_000_000_000}),
    "org/odd-config": Model({"model_type": "odd"}, {"BF16": 1_000_000_000}),
    "org/gated": Model(_llama(32, 8), {"BF16": 8_000_000_000}, gated=True),
    "org/private": Model(_llama(32, 8), {"BF16": 8_000_000_000}, private=True),
}


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
        files = model.files().items()
        info: dict[str, Any] = {
            "id": repo,
            "sha": _SHA,
            "gated": "manual" if model.gated else False,
            "siblings": [{"rfilename": name, **({"size": size} if sizes else {})} for name, size in files],
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
        if name == "config.json":
            return await _json(exchange, model.config)
        if name.endswith("index.json"):
            return await _json(exchange, model.index())
        port = exchange.request.headers.get("host", "").rpartition(":")[2]
        await exchange.reply(
            302, b"", [("location", f"http://localhost:{port}/hub-cdn/{repo}/{name}?signed=1")]
        )
        return 302

    async def _cdn(self, exchange: Exchange, path: str) -> int:
        """Bytes of a weights file. A signed address takes no second kind of authorization (as S3 says it: 400)."""
        repo, _, name = path.rpartition("/")
        if "authorization" in exchange.request.headers:
            raise _Refusal(400)
        model = MODELS[repo]
        size = model.files()[name]
        wanted = _RANGE.fullmatch(exchange.request.headers.get("range", "")) if model.ranges else None
        begin = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2] or size - 1), size - 1) + 1 if wanted else size
        partial = [("content-range", f"bytes {begin}-{end - 1}/{size}")] if wanted else []
        await exchange.start(206 if wanted else 200, [*partial, ("content-length", str(end - begin))])
        header = model.header()
        while begin < end and not exchange.gone:
            piece = (header[begin:] or _ZEROS)[: min(len(_ZEROS), end - begin)]
            await exchange.send(piece)
            begin += len(piece)
            await asyncio.sleep(0)  # a client that leaves must be noticed
        exchange.complete = begin >= end
        return 206 if wanted else 200


def _visible(exchange: Exchange, repo: str, revision: str) -> Model:
    """The model; a private one does not exist for strangers."""
    token, model = _token(exchange), MODELS.get(repo)
    if token not in ("", TOKEN, OUTSIDER):
        raise _Refusal(401)
    if model is None or (model.private and token != TOKEN):
        raise _Refusal(404 if token else 401, "RepoNotFound")
    if revision not in ("main", "v1", _SHA):
        raise _Refusal(404, "RevisionNotFound")
    return model


def _token(exchange: Exchange) -> str:
    return exchange.request.headers.get("authorization", "").partition(" ")[2]


async def _fail(exchange: Exchange, fault: Fault) -> int | None:
    """The status that went out, 0 for none; None: it is only late, or done already."""
    match fault.kind:
        case "slow":
            await asyncio.sleep(fault.seconds)
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
