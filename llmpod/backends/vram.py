"""Not a measurement: how much memory of each GPU a model takes in vLLM, part by part, from its ``config.json``.

Pure; nothing of the model is run. vLLM reserves ``utilization`` of a GPU; what weights, activations and libraries
leave of it is KV cache (identity checked against llm-d's H100 table: 5 of 5 runs within 0.01 GiB). So a model fits
when ``weights/n + KV + activation + other <= utilization * usable``. All sizes are GiB unless a name says bytes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIB = 2**30
UTILIZATION = 0.92  # vLLM's default of gpu_memory_utilization (vllm/config/cache.py)
BATCHED_TOKENS = 2048
BATCHED_REQUESTS = 256
# Peak of the profiling run by batched tokens. llm-d on H100, 8192 tokens: dense 4.8-5.6, mixture of experts 7.4;
# small cards with 2048 tokens: below 1. In between it grows with the tokens.
_ACTIVATION = {False: ((2048, 1.0), (8192, 5.6)), True: ((2048, 2.0), (8192, 8.0))}
_VISION = 2.0  # an assumption: images are profiled at their largest
_OTHER = {1: 0.15}  # CUDA context and libraries, llm-d
_OTHER_PARALLEL = 0.6  # with NCCL, llm-d
PARALLEL = (1, 2, 4, 8)


class UnknownShape(ValueError):
    """``config.json`` does not say what the estimate needs; the message names it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides about memory.

    Args:
        weights_bytes: size of the weights as they are loaded.
        layers: layers with a KV cache.
        heads: attention heads.
        kv_heads: key/value heads; 0 where one latent vector serves all heads (MLA).
        head_dim: width of one head; with MLA the width of the latent vector.
        context: the longest context the model was made for; None when it does not say.
        dtype: of unquantized weights, ``bfloat16`` as a rule.
        quantization: ``fp8``, ``awq``, … or empty.
        group: columns that share a scale and must not be torn apart between GPUs; 0: none.
        width: the width that is cut between GPUs in such groups.
        experts: whether it is a mixture of experts.
        vision: whether it also reads images.
        generates: whether it writes text; an encoder must take its whole input at once.
    """

    weights_bytes: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int | None = None
    dtype: str = "bfloat16"
    quantization: str = ""
    group: int = 0
    width: int = 0
    experts: bool = False
    vision: bool = False
    generates: bool = True

    def kv_token_bytes(self, element_bytes: float = 2, gpus: int = 1) -> float:
        """KV cache of one token on one of so many GPUs. Heads are shared out, never cut; a latent is on each."""
        if not self.kv_heads:
            return self.layers * self.head_dim * element_bytes
        return 2 * self.layers * math.ceil(self.kv_heads / gpus) * self.head_dim * element_bytes

    def not_parallel(self, gpus: int) -> str:
        """Why vLLM cannot cut it into so many parts; empty when it can."""
        if self.heads % gpus:
            return f"{self.heads} attention heads cannot be shared by {gpus} GPUs"
        if self.kv_heads and self.kv_heads % gpus and gpus % self.kv_heads:
            return f"{self.kv_heads} key/value heads cannot be shared by {gpus} GPUs"
        if self.group and self.width and gpus > 1 and self.width % (gpus * self.group):
            return f"its width of {self.width} in groups of {self.group} cannot be shared by {gpus} GPUs"
        return ""


@dataclass(frozen=True, slots=True)
class Load:
    """What the server is set up for.

    Args:
        context: tokens of one request at most (``--max-model-len``).
        requests: requests of full length whose KV cache must fit at once.
        batched_tokens: ``--max-num-batched-tokens``.
        utilization: ``--gpu-memory-utilization``.
        kv_bytes: bytes of one element of the KV cache: 1 for fp8.
    """

    context: int
    requests: int = 4
    batched_tokens: int = BATCHED_TOKENS
    utilization: float = UTILIZATION
    kv_bytes: float = 2


@dataclass(frozen=True, slots=True)
class Need:
    """What each of ``gpus`` GPUs must hold, in GiB."""

    gpus: int
    weights: float
    kv: float
    activation: float
    other: float
    load: Load

    @property
    def total(self) -> float:
        return self.weights + self.kv + self.activation + self.other

    def __str__(self) -> str:
        each = " on each GPU" if self.gpus > 1 else ""
        return (
            f"needs {self.total:.1f} GiB{each}: weights {self.weights:.1f},"
            f" KV {self.kv:.1f} ({self.load.requests} x {self.load.context} tokens),"
            f" activation {self.activation:.1f}, other {self.other:.1f}"
        )


def need(shape: Shape, load: Load, gpus: int) -> Need:
    """What each of ``gpus`` GPUs must hold; see :meth:`Shape.not_parallel` for whether that can be."""
    kv = shape.kv_token_bytes(load.kv_bytes, gpus) * load.context * load.requests
    return Need(
        gpus=gpus,
        weights=shape.weights_bytes / gpus / GIB,
        kv=kv / GIB,
        activation=activation(load.batched_tokens, experts=shape.experts) + _VISION * shape.vision,
        other=_OTHER.get(gpus, _OTHER_PARALLEL),
        load=load,
    )


def activation(tokens: int, *, experts: bool) -> float:
    """GiB of the largest forward pass over so many tokens; never less than for 2048."""
    (low, least), (high, most) = _ACTIVATION[experts]
    return max(least, least + (most - least) * (tokens - low) / (high - low))


def shape(config: Mapping[str, Any], weights_bytes: int) -> Shape:
    """Read ``config.json``.

    Args:
        config: the document; parts for text inside a multimodal model are found.
        weights_bytes: size of the weights as they are loaded.

    Raises:
        UnknownShape: it lacks layers or heads.
    """
    text = _text_part(config)
    layers = _layers(text)
    heads = _number(text, "num_attention_heads", "n_head", "n_heads")
    if not layers or not heads:
        raise UnknownShape("its config.json does not tell the number of layers and attention heads")
    quant = _mapping(text.get("quantization_config") or config.get("quantization_config"))
    kv_heads, head_dim = _kv(text, heads)
    expert_width = _number(text, "moe_intermediate_size")
    return Shape(
        weights_bytes=weights_bytes,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        context=_context(text),
        dtype=str(text.get("dtype") or text.get("torch_dtype") or config.get("torch_dtype") or "bfloat16"),
        quantization=_quantization(quant),
        group=_group(quant),
        width=expert_width or _number(text, "intermediate_size"),
        experts=bool(_number(text, "num_local_experts", "num_experts", "n_routed_experts")),
        vision="vision_config" in config,
        generates=_generates(config.get("architectures")),
    )


def _generates(architectures: object) -> bool:
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    return not names or any("CausalLM" in name or "ConditionalGeneration" in name for name in names)


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in ("text_config", "llm_config", "language_config", "thinker_config"):
        if inner := _mapping(config.get(name)):
            return _text_part(inner)
    return config


def _layers(text: Mapping[str, Any]) -> int:
    """Layers with a cache that grows with the context: state-space and linear layers keep a state of fixed size."""
    kinds = text.get("layer_types")
    if isinstance(kinds, list) and kinds:
        growing = [kind for kind in kinds if not any(word in str(kind) for word in ("linear", "mamba"))]
        return max(len(growing), 1)
    return _number(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers")


def _kv(text: Mapping[str, Any], heads: int) -> tuple[int, int]:
    """Key/value heads and width; 0 heads stand for one latent vector (multi-head latent attention)."""
    if rank := _number(text, "kv_lora_rank"):
        return 0, rank + _number(text, "qk_rope_head_dim")
    kv_heads = _number(text, "num_key_value_heads", "num_kv_heads", "multi_query_group_num", "n_head_kv")
    if not kv_heads:
        kv_heads = 1 if text.get("multi_query") is True else heads
    hidden = _number(text, "hidden_size", "n_embd", "d_model")
    width = _number(text, "head_dim", "kv_channels") or hidden // heads
    if not width:
        raise UnknownShape("its config.json does not tell the width of an attention head")
    return kv_heads, width


def _context(text: Mapping[str, Any]) -> int | None:
    """The length that vLLM derives when it is told none: stretched by position scaling where that is not built in."""
    length = _number(text, "max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    scaling = _mapping(text.get("rope_scaling") or text.get("rope_parameters"))
    kind, factor = scaling.get("rope_type") or scaling.get("type"), scaling.get("factor")
    if not length or not isinstance(factor, int | float) or "gemma3" in str(text.get("model_type")):
        return length or None
    if kind == "yarn" and (original := _number(scaling, "original_max_position_embeddings")):
        return max(length, int(original * factor))
    return int(length * factor) if kind in ("linear", "dynamic") else length


def _quantization(quant: Mapping[str, Any]) -> str:
    method = str(quant.get("quant_method") or "").lower()
    if method == "compressed-tensors":
        return _compressed(quant)
    both = f"{method} {quant.get('quant_algo') or ''}".lower()  # ModelOpt says FP8 or NVFP4 in the second
    return next((name for name in ("nvfp4", "mxfp4", "fp8") if name in both), method)


def _compressed(quant: Mapping[str, Any]) -> str:
    """What compressed-tensors hold: numbers of 8 or 4 bits, floats or integers."""
    group = _mapping(next(iter(_mapping(quant.get("config_groups")).values()), None))
    weights = _mapping(group.get("weights"))
    if weights.get("type") != "float":
        return "int8" if weights.get("num_bits") == 8 else "compressed-tensors"
    return "fp8" if weights.get("num_bits") == 8 else "nvfp4"


def _group(quant: Mapping[str, Any]) -> int:
    block = quant.get("weight_block_size")
    if isinstance(block, list) and block and type(block[0]) is int:
        return max(block[0], 0)
    return _number(quant, "group_size")


def _number(document: Mapping[str, Any], *names: str) -> int:
    """The first of these fields that is a whole number above zero; 0 when none is."""
    values = (document.get(name) for name in names)
    return next((value for value in values if type(value) is int and value > 0), 0)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
