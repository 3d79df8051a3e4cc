"""Not the truth about stock: the GPU types, data centers and templates of the fake account, and what is free.

Prices in EU-RO-1 secure were measured 2026-08-19 for L4, RTX A6000, RTX 4090, RTX 5090 and A100 SXM; the other prices
are made up in proportion.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from llmpod.sim.behavior import Behavior

PLENTY = 8
CUDA = ("12.4", "12.6", "12.8", "12.9", "13.0")


@dataclass(frozen=True)
class Gpu:
    """A GPU type. Memory in GB, prices in USD per hour for one; a cloud without price does not have it."""

    id: str
    name: str
    pool: str | None
    memory: int
    secure: float
    community: float
    most: int = 8

    def price(self, cloud: str) -> float:
        return self.secure if cloud == "SECURE" else self.community


GPUS = {
    gpu.id: gpu
    for gpu in (
        Gpu("NVIDIA L4", "L4", "ADA_24", 24, 0.49, 0.39),
        Gpu("NVIDIA A40", "A40", "AMPERE_48", 48, 0.44, 0.35),
        Gpu("NVIDIA RTX A6000", "RTX A6000", "AMPERE_48", 48, 0.53, 0.33),
        Gpu("NVIDIA GeForce RTX 4090", "RTX 4090", "ADA_24", 24, 0.74, 0.34, 6),
        Gpu("NVIDIA RTX PRO 4500 Blackwell", "RTX PRO 4500", None, 32, 0.72, 0.0),
        Gpu("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", "ADA_48_PRO", 48, 0.77, 0.74),
        Gpu("NVIDIA L40S", "L40S", "ADA_48_PRO", 48, 0.86, 0.79),
        Gpu("NVIDIA GeForce RTX 5090", "RTX 5090", "ADA_32_PRO", 32, 0.99, 0.69),
        Gpu("NVIDIA A100 80GB PCIe", "A100 PCIe", "AMPERE_80", 80, 1.39, 1.19),
        Gpu("NVIDIA A100-SXM4-80GB", "A100 SXM", "AMPERE_80", 80, 1.59, 1.39),
        Gpu("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000", None, 96, 1.84, 1.69),
        Gpu("NVIDIA H100 NVL", "H100 NVL", "ADA_80_PRO", 94, 2.59, 2.49),
        Gpu("NVIDIA H100 80GB HBM3", "H100 SXM", "ADA_80_PRO", 80, 2.69, 2.59),
        Gpu("NVIDIA H200", "H200 SXM", "HOPPER_141", 141, 3.59, 0.0),
        Gpu("NVIDIA B200", "B200", "BLACKWELL_180", 180, 5.98, 0.0),
    )
}
CENTERS = {
    "EU-RO-1": "EUROPE",
    "EU-SE-1": "EUROPE",
    "EUR-IS-1": "EUROPE",
    "US-CA-2": "NORTH_AMERICA",
    "US-KS-2": "NORTH_AMERICA",
    "US-TX-3": "NORTH_AMERICA",
    "CA-MTL-1": "NORTH_AMERICA",
    "AP-JP-1": "ASIA",
}
_COUNTRIES = {"EU": 1, "EUR": 1, "AP": 1}  # `EU-RO-1` names the country second, `US-CA-2` first
VOLUMES = {"vol0demo01": "EU-RO-1"}
CPU_PER_VCPU = 0.03
CPUS = {
    "cpu3c": ("Compute-Optimized", 2.0),
    "cpu3g": ("General Purpose", 4.0),
    "cpu5c": ("Compute-Optimized", 2.0),
}


@dataclass(frozen=True)
class Used:
    """What one live pod occupies."""

    gpu: str
    count: int
    cloud: str
    center: str


def country(center: str) -> str:
    """ISO 3166-1 code of a data center."""
    parts = center.split("-")
    return parts[_COUNTRIES.get(parts[0], 0)][:2]


def free(place: Used, used: Iterable[Used], behavior: Behavior) -> int:
    """How many GPUs of this type, in this cloud and data center, no live pod occupies."""
    if place.gpu in behavior.no_capacity:
        return 0
    capacity = behavior.capacity
    pattern = next((pattern for pattern in capacity if _fits(place, pattern)), None)
    if pattern is None:
        return PLENTY
    return capacity[pattern] - sum(other.count for other in used if _fits(other, pattern))


def _fits(place: Used, pattern: str) -> bool:
    return fnmatchcase(f"{place.gpu}/{place.cloud}/{place.center}", pattern)


def level(count: int) -> str:
    """The catalog's word for a stock."""
    return "NONE" if count < 1 else "LOW" if count < 3 else "MEDIUM" if count < 6 else "HIGH"


@dataclass(frozen=True)
class Query:
    """What a catalog request asks about stock."""

    count: int = 1
    cloud: str = "SECURE"
    countries: tuple[str, ...] = ()
    exact_cuda: tuple[str, ...] = ()
    least_cuda: str = "0"


def stock(gpu: Gpu, query: Query, used: list[Used], behavior: Behavior) -> dict[str, int]:
    """Free GPUs by data center, as the catalog tells it."""
    centers = [name for name in CENTERS if not query.countries or country(name) in query.countries]
    if gpu.price(query.cloud) == 0 or not cuda_fits(query.exact_cuda, query.least_cuda):
        return dict.fromkeys(centers, 0)
    if behavior.catalog_lies:
        return dict.fromkeys(centers, PLENTY)
    counts = {name: free(Used(gpu.id, 0, query.cloud, name), used, behavior) for name in centers}
    return {name: count if count >= query.count else 0 for name, count in counts.items()}


def cuda_fits(exact: Iterable[str], least: str) -> bool:
    """Whether some host has a CUDA version that is wanted."""
    exact = tuple(exact)
    return any((not exact or have in exact) and _numbers(have) >= _numbers(least) for have in CUDA)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def gpu_entry(gpu: Gpu, counts: Mapping[str, int] | None, query: Query) -> dict[str, Any]:
    """One GPU type as the catalog shows it; with `counts`, its availability."""
    clouds = {"secure": gpu.secure, "community": gpu.community}
    entry: dict[str, Any] = {
        "id": gpu.id,
        "name": gpu.name,
        "pool": gpu.pool,
        "manufacturer": "NVIDIA",
        "memory": gpu.memory,
        "secure": gpu.secure > 0,
        "community": gpu.community > 0,
        "price": {**clouds, "serverless": round(1.8 * gpu.secure, 2)} if gpu.pool else clouds,
        "maxCount": {cloud: gpu.most if price else 0 for cloud, price in clouds.items()},
    }
    if counts is None:
        return entry
    entry["availability"] = level(max(counts.values(), default=0))
    if any(counts.values()):
        entry["dataCenters"] = [
            {"id": name, "name": name, "availability": level(count)} for name, count in counts.items()
        ]
    wanted = [have for have in CUDA if cuda_fits(query.exact_cuda or (have,), query.least_cuda)]
    entry["cudaVersions"] = [{"version": have, "available": True} for have in wanted]
    return entry


def center_entry(name: str, counts: Mapping[str, int] | None) -> dict[str, Any]:
    """One data center; with `counts` by GPU, its availability."""
    entry: dict[str, Any] = {
        "id": name,
        "name": name,
        "region": CENTERS[name],
        "networkVolumeTypes": ["STANDARD"],
        "compliance": ["GDPR"] if CENTERS[name] == "EUROPE" else [],
        "globalNetwork": name != "AP-JP-1",
    }
    if counts is not None:
        entry["gpuAvailability"] = [
            {"id": gpu, "name": GPUS[gpu].name, "availability": level(count)} for gpu, count in counts.items()
        ]
    return entry


def cpu_entries() -> list[dict[str, Any]]:
    """The CPU types."""
    price = {"securePerVcpu": CPU_PER_VCPU, "serverlessPerVcpu": CPU_PER_VCPU}
    return [
        {
            "id": id_,
            "name": name,
            "group": name,
            "vcpu": {"min": 2, "max": 32},
            "ramGbPerVcpu": ram,
            "price": price,
        }
        for id_, (name, ram) in CPUS.items()
    ]


def _template(id_: str, name: str, image: str, **more: Any) -> dict[str, Any]:
    base = {
        "id": id_,
        "name": name,
        "image": image,
        "args": "",
        "disk": 50,
        "mounts": {},
        "ports": [],
        "env": {},
    }
    flags = {
        "serverless": False,
        "public": True,
        "category": "NVIDIA",
        "startSsh": True,
        "startJupyter": False,
    }
    return {**base, "registry": None, **flags, "allowedCudaVersions": [], **more}


TEMPLATES = {
    template["id"]: template
    for template in (
        _template(
            "vllm0tmpl1",
            "vLLM Latest",
            "vllm/vllm-openai:v0.29.0",
            args="--model meta-llama/Llama-3-8B --max-model-len 8192",
            ports=["8000/http"],
            env={"HF_HOME": "/workspace/hf"},
        ),
        _template("runpodtorch", "RunPod PyTorch", "runpod/pytorch:2.8.0", ports=["8888/http", "22/tcp"]),
        _template("srvless001", "Serverless vLLM", "runpod/worker-v1-vllm:v2.9.0", serverless=True),
    )
}
