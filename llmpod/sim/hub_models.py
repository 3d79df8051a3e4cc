"""Not a model registry: the repositories of the fake hub, and what their files hold, without holding it.

A file is a beginning and zeros after it. Those of up to 64 MiB have their true digests, as the real hub tells them:
SHA-256 for large files (LFS), git's own for small ones; of larger ones nobody waits for the end.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

SHA = "5f0b02c75b57c5855da9ae460ce51323ea669d8a"
_WIDTH = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I32": 4, "U8": 1}
_DIGESTED_BYTES = 64 * 2**20
_SMALL_BYTES = 10_000


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

    def beginning(self, name: str) -> bytes:
        """What a file holds before its zeros."""
        if name == "config.json":
            return json.dumps(self.config).encode()
        if name.endswith("index.json"):
            return json.dumps(self.index()).encode()
        return self.header() if name.endswith(".safetensors") else b""

    def files(self) -> dict[str, int]:
        """Names and sizes."""
        small = {"config.json": len(self.beginning("config.json")), "tokenizer.json": 7_000_000, **self.extra}
        if not self.tensors:
            return small
        if not self.shards:
            return {**small, "model.safetensors": len(self.header()) + self.size}
        share, index = self.size // self.shards, "model.safetensors.index.json"
        shards = dict.fromkeys(self.index()["weight_map"].values(), share)
        return {**small, **shards, index: len(self.beginning(index))}

    def entry(self, name: str) -> dict[str, Any]:
        """What the API says of a file."""
        size, beginning = self.files()[name], self.beginning(name)
        about = {"rfilename": name, "size": size, "blobId": _git(beginning, size)}
        if size > _SMALL_BYTES:
            about["lfs"] = {"sha256": _sha256(beginning, size, name), "size": size, "pointerSize": 135}
        return about

    def is_large(self, name: str) -> bool:
        """Whether the CDN has it."""
        return self.files()[name] > _SMALL_BYTES


@cache
def _sha256(beginning: bytes, size: int, name: str) -> str:
    if size > _DIGESTED_BYTES:
        return hashlib.sha256(name.encode()).hexdigest()
    return hashlib.sha256(beginning + bytes(size - len(beginning))).hexdigest()


@cache
def _git(beginning: bytes, size: int) -> str:
    rest = size - len(beginning) if size <= _SMALL_BYTES else 0  # of a large file it is that of its pointer
    return hashlib.sha1(b"blob %d\0" % size + beginning + bytes(rest), usedforsecurity=False).hexdigest()


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
    "org/many-forms": Model(
        _llama(2, 2),
        {"BF16": 10_000},
        extra={
            "pytorch_model.bin": 20_000,
            "original/model.safetensors": 20_000,
            "onnx/model.onnx": 20_000,
            "1_Pooling/config.json": 200,
        },
    ),
    "org/quantized": Model(_llama(2, 2), {}, extra={"m.Q4_K_M.gguf": 20_000, "m.Q8_0.gguf": 30_000}),
    "org/no-weights": Model(_llama(2, 2), {}, extra={"model.Q4_K_M.gguf": 4_000_000_000}),
    "org/odd-config": Model({"model_type": "odd"}, {"BF16": 1_000_000_000}),
    "org/gated-small": Model(_llama(2, 2), {"BF16": 10_000}, gated=True),
    "org/gated": Model(_llama(32, 8), {"BF16": 8_000_000_000}, gated=True),
    "org/private": Model(_llama(32, 8), {"BF16": 8_000_000_000}, private=True),
}
