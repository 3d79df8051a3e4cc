"""Not the hub: well-known models from memory, for when the hub cannot be asked. All figures are approximations.

Shapes and parameter counts are the makers' published ones, as generally known; none was looked up for this table.
Quantized copies (AWQ, GPTQ, FP8) are listed only where their size is known, since it does not follow from the name.
"""

from dataclasses import replace

from llmpod.backends.vram import Shape

_B = 10**9


def _gqa(gb: float, layers: int, heads: tuple[int, int], *, context: int, dim: int = 128) -> Shape:
    return Shape(int(gb * _B), layers, heads[0], heads[1], dim, context)


def _experts(gb: float, layers: int, heads: tuple[int, int], *, context: int, dim: int = 128) -> Shape:
    return replace(_gqa(gb, layers, heads, context=context, dim=dim), experts=True)


def _latent(gb: float, layers: int, heads: int, *, quantization: str = "") -> Shape:
    """DeepSeek's latent attention: 512 numbers and 64 of position for all heads together."""
    return Shape(int(gb * _B), layers, heads, 0, 576, 163840, quantization=quantization, experts=True)


def _packed(gb: float, like: Shape, quantization: str) -> Shape:
    return replace(like, weights_bytes=int(gb * _B), quantization=quantization)


_QWEN25 = {
    "0.5B": _gqa(0.99, 24, (14, 2), context=32768, dim=64),
    "1.5B": _gqa(3.09, 28, (12, 2), context=32768),
    "3B": _gqa(6.17, 36, (16, 2), context=32768),
    "7B": _gqa(15.2, 28, (28, 4), context=32768),
    "14B": _gqa(29.5, 48, (40, 8), context=32768),
    "32B": _gqa(65.5, 64, (40, 8), context=32768),
    "72B": _gqa(145.4, 80, (64, 8), context=32768),
}
_QWEN3 = {
    "0.6B": _gqa(1.5, 28, (16, 8), context=40960),
    "1.7B": _gqa(4.1, 28, (16, 8), context=40960),
    "4B": _gqa(8.0, 36, (32, 8), context=40960),
    "8B": _gqa(16.4, 36, (32, 8), context=40960),
    "14B": _gqa(29.5, 40, (40, 8), context=40960),
    "32B": _gqa(65.5, 64, (64, 8), context=40960),
    "30B-A3B": _experts(61.1, 48, (32, 4), context=40960),
    "235B-A22B": _experts(470.2, 94, (64, 4), context=40960),
}
_LLAMA_8B = _gqa(16.1, 32, (32, 8), context=131072)
_LLAMA_70B = _gqa(141.1, 80, (64, 8), context=131072)
_CODER_30B = _experts(61.1, 48, (32, 4), context=262144)

KNOWN: dict[str, Shape] = {
    **{f"Qwen/Qwen2.5-{size}{kind}": it for size, it in _QWEN25.items() for kind in ("", "-Instruct")},
    **{
        f"Qwen/Qwen2.5-Coder-{size}{kind}": it
        for size, it in _QWEN25.items()
        for kind in ("", "-Instruct")
        if size != "72B"
    },
    "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ": _packed(5.6, _QWEN25["7B"], "awq"),
    "Qwen/Qwen2.5-Coder-14B-Instruct-AWQ": _packed(10.0, _QWEN25["14B"], "awq"),
    "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ": _packed(19.3, _QWEN25["32B"], "awq"),
    **{f"Qwen/Qwen3-{size}": it for size, it in _QWEN3.items()},
    "Qwen/Qwen3-Coder-30B-A3B-Instruct": _CODER_30B,
    "Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8": _packed(31.2, _CODER_30B, "fp8"),
    "meta-llama/Meta-Llama-3-8B-Instruct": _gqa(16.1, 32, (32, 8), context=8192),
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA_8B,
    "meta-llama/Llama-3.1-70B-Instruct": _LLAMA_70B,
    "meta-llama/Llama-3.1-405B-Instruct": _gqa(811.7, 126, (128, 8), context=131072),
    "meta-llama/Llama-3.2-1B-Instruct": _gqa(2.5, 16, (32, 8), context=131072, dim=64),
    "meta-llama/Llama-3.2-3B-Instruct": _gqa(6.4, 28, (24, 8), context=131072),
    "meta-llama/Llama-3.3-70B-Instruct": _LLAMA_70B,
    "mistralai/Mistral-7B-Instruct-v0.3": _gqa(14.5, 32, (32, 8), context=32768),
    "mistralai/Mistral-Nemo-Instruct-2407": _gqa(24.5, 40, (32, 8), context=131072),
    "mistralai/Mistral-Small-24B-Instruct-2501": _gqa(47.1, 40, (32, 8), context=32768),
    "mistralai/Devstral-Small-2507": _gqa(47.1, 40, (32, 8), context=131072),
    "mistralai/Codestral-22B-v0.1": _gqa(44.5, 56, (48, 8), context=32768),
    "mistralai/Mixtral-8x7B-Instruct-v0.1": _experts(93.4, 32, (32, 8), context=32768),
    "deepseek-ai/deepseek-coder-6.7b-instruct": _gqa(13.5, 32, (32, 32), context=16384),
    "deepseek-ai/deepseek-coder-33b-instruct": _gqa(66.7, 62, (56, 8), context=16384),
    "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct": _latent(31.4, 27, 16),
    "deepseek-ai/DeepSeek-V3": _latent(688.6, 61, 128, quantization="fp8"),
    "deepseek-ai/DeepSeek-R1": _latent(688.6, 61, 128, quantization="fp8"),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": replace(_QWEN25["14B"], context=131072),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": replace(_QWEN25["32B"], context=131072),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": _LLAMA_8B,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B": _LLAMA_70B,
    "openai/gpt-oss-20b": _packed(13.8, _experts(0, 24, (64, 8), context=131072, dim=64), "mxfp4"),
    "openai/gpt-oss-120b": _packed(65.2, _experts(0, 36, (64, 8), context=131072, dim=64), "mxfp4"),
    "google/gemma-2-9b-it": _gqa(18.5, 42, (16, 8), context=8192, dim=256),
    "google/gemma-2-27b-it": _gqa(54.5, 46, (32, 16), context=8192),
    "google/gemma-3-1b-it": _gqa(2.0, 26, (4, 1), context=32768, dim=256),
    "google/gemma-3-4b-it": replace(_gqa(8.6, 34, (8, 4), context=131072, dim=256), vision=True),
    "google/gemma-3-12b-it": replace(_gqa(24.4, 48, (16, 8), context=131072, dim=256), vision=True),
    "google/gemma-3-27b-it": replace(_gqa(54.9, 62, (32, 16), context=131072), vision=True),
    "microsoft/phi-4": _gqa(29.3, 40, (40, 10), context=16384),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _gqa(3.4, 24, (32, 32), context=8192, dim=64),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": _gqa(2.2, 22, (32, 4), context=2048, dim=64),
}
