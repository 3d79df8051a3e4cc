"""Not a catalog: what RunPod's GPU types can do, as their driver and torch tell it. Prices and stock are elsewhere.

The ids and the memory that RunPod advertises are from its documentation (references/gpu-types). Usable memory is
what torch reports ("GPU 0 has a total capacity of …"), read in public out-of-memory reports: 22.03 GiB on an L4,
44.34 on an A40 and L40S, 47.4 on an RTX A6000, 31.36 on an RTX 5090, 79.1 on an A100 and H100, 93.02 on an H100 NVL,
94.5 on an RTX PRO 6000, 139.72 on an H200, 178.35 on a B200; of several figures the smallest. Of the other types the
nearest relative stands in. Compute capabilities are NVIDIA's.
"""

from dataclasses import dataclass

_UNKNOWN_SHARE = 0.91  # of the advertised memory; the least that is known is 0.918 (L4)


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU type.

    Args:
        memory_gb: as advertised.
        usable_gib: as the driver hands it out.
        capability: CUDA compute capability.
    """

    memory_gb: int
    usable_gib: float
    capability: float


CARDS = {
    "NVIDIA L4": Card(24, 22.03, 8.9),
    "NVIDIA GeForce RTX 3090": Card(24, 23.5, 8.6),
    "NVIDIA GeForce RTX 4090": Card(24, 23.5, 8.9),
    "NVIDIA RTX A5000": Card(24, 23.5, 8.6),
    "NVIDIA GeForce RTX 5090": Card(32, 31.36, 12.0),
    "NVIDIA RTX PRO 4500 Blackwell": Card(32, 31.3, 12.0),
    "NVIDIA A40": Card(48, 44.34, 8.6),
    "NVIDIA RTX A6000": Card(48, 47.4, 8.6),
    "NVIDIA L40": Card(48, 44.34, 8.9),
    "NVIDIA L40S": Card(48, 44.34, 8.9),
    "NVIDIA RTX 6000 Ada Generation": Card(48, 47.4, 8.9),
    "NVIDIA A100 80GB PCIe": Card(80, 79.1, 8.0),
    "NVIDIA A100-SXM4-80GB": Card(80, 79.1, 8.0),
    "NVIDIA H100 PCIe": Card(80, 79.1, 9.0),
    "NVIDIA H100 80GB HBM3": Card(80, 79.1, 9.0),
    "NVIDIA H100 NVL": Card(94, 93.02, 9.0),
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": Card(96, 94.5, 12.0),
    "NVIDIA H200": Card(141, 139.72, 9.0),
    "NVIDIA B200": Card(180, 178.35, 10.0),
}

# What vLLM's kernels want at least; weights in other formats run on everything that RunPod rents.
_WANTS = {"bfloat16": 8.0, "awq": 7.5, "gptq": 7.5, "fp8": 8.9, "mxfp4": 8.0, "nvfp4": 10.0, "int8": 7.5}


def usable_gib(gpu_id: str, memory_gb: int) -> float:
    """What a program gets of a GPU; of an unknown type a careful share of what is advertised."""
    card = CARDS.get(gpu_id)
    return card.usable_gib if card else memory_gb * _UNKNOWN_SHARE


def incapable(gpu_id: str, *formats: str) -> str:
    """Why a GPU cannot compute with numbers of these formats; empty when it can, or when nobody knows."""
    card = CARDS.get(gpu_id)
    for name in formats:
        least = _WANTS.get(name, 0.0)
        if card and card.capability < least:
            return f"its compute capability is {card.capability}, {name} wants {least}"
    return ""
