"""Not a promise of stock: what RunPod says it has and asks for it, and how the configuration's ids compare.

Source: ``GET /v2/catalog/gpus`` and ``/datacenters`` (api-reference-v2). Prices are list prices in USD per hour
for one GPU; the billed rate is the pod's own ``cost``. Stock moves within seconds.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llmpod.backends.runpod_api import RunpodApi
from llmpod.config import VLLM_PRESET, PodConfig
from llmpod.errors import ProviderError
from llmpod.model import Offer

STOCK_ORDER = ("HIGH", "MEDIUM", "LOW", "unknown", "NONE")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU type. ``usd_per_hour`` by cloud tier; ``stock`` for the tier that was asked about."""

    id: str
    memory_gb: int
    usd_per_hour: Mapping[str, float]
    stock: str = "unknown"
    data_centers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Catalog:
    """What could be bought. ``fetched_at`` is None for the built-in list, whose prices are unknown."""

    gpus: tuple[Gpu, ...]
    data_centers: tuple[str, ...]
    templates: Mapping[str, str]
    fetched_at: float | None

    def gpu(self, gpu_id: str) -> Gpu | None:
        return next((gpu for gpu in self.gpus if gpu.id == gpu_id), None)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


# RunPod's documented ids (references/gpu-types) with their memory in GB; prices change, so none is built in.
_BUILT_IN = {
    "NVIDIA L4": 24,
    "NVIDIA GeForce RTX 4090": 24,
    "NVIDIA GeForce RTX 5090": 32,
    "NVIDIA A40": 48,
    "NVIDIA RTX A6000": 48,
    "NVIDIA L40S": 48,
    "NVIDIA RTX 6000 Ada Generation": 48,
    "NVIDIA A100 80GB PCIe": 80,
    "NVIDIA A100-SXM4-80GB": 80,
    "NVIDIA H100 80GB HBM3": 80,
    "NVIDIA H100 NVL": 94,
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": 96,
    "NVIDIA H200": 141,
    "NVIDIA B200": 180,
}
BUILT_IN = Catalog(tuple(Gpu(name, gb, {}) for name, gb in _BUILT_IN.items()), (), {}, None)


def fetch(api: RunpodApi, config: PodConfig, *, now: float) -> Catalog:
    """Ask RunPod.

    Raises:
        ProviderError: no usable answer.
    """
    query = {
        "include": "AVAILABILITY",
        "product": "POD",
        "count": str(config.gpu_count),
        "cloud": config.cloud,
    }
    gpus = api.get("/v2/catalog/gpus", **query).get("gpus") or []
    centers = api.get("/v2/catalog/datacenters").get("dataCenters") or []
    return Catalog(
        gpus=tuple(_gpu(item) for item in gpus),
        data_centers=tuple(str(item["id"]) for item in centers),
        templates=_templates(api),
        fetched_at=now,
    )


def from_dict(document: Mapping[str, Any]) -> Catalog:
    """A catalog as :meth:`Catalog.as_dict` wrote it. Raises KeyError or TypeError when it is another thing."""
    return Catalog(
        gpus=tuple(Gpu(**{**g, "data_centers": tuple(g["data_centers"])}) for g in document["gpus"]),
        data_centers=tuple(document["data_centers"]),
        templates=dict(document["templates"]),
        fetched_at=document["fetched_at"],
    )


def offers(config: PodConfig, catalog: Catalog) -> tuple[Offer, ...]:
    """The configured GPU types in the configured order, with what the catalog knows of each."""
    return tuple(_offer(gpu_id, config, catalog.gpu(gpu_id)) for gpu_id in config.gpus)


def mistakes(config: PodConfig, catalog: Catalog) -> list[str]:
    """Ids in the configuration that the catalog does not know, each with the nearest ones that it does."""
    found = [_unknown("gpu_type_id", gpu, [g.id for g in catalog.gpus]) for gpu in config.gpus]
    if catalog.data_centers:
        found += [_unknown("data_center_ids", dc, catalog.data_centers) for dc in config.data_center_ids]
    return [mistake for mistake in found if mistake]


def note_template(config: PodConfig, catalog: Catalog) -> str:
    """What can be said about a template id: the public ones are listed, an own one is not."""
    if config.template_id == VLLM_PRESET:
        return f"template_id `{VLLM_PRESET}` is llmpod's built-in preset (image {config.image})."
    if name := catalog.templates.get(config.template_id):
        return f"template_id {config.template_id} is RunPod's template {name}."
    return f"template_id {config.template_id} is none of the official templates; it may be one of your own."


def _offer(gpu_id: str, config: PodConfig, gpu: Gpu | None) -> Offer:
    if gpu is None:
        return Offer(gpu_id, config.gpu_count, note="not in the catalog")
    price = gpu.usd_per_hour.get(config.cloud)
    return Offer(
        gpu_id,
        config.gpu_count,
        usd_per_hour=price * config.gpu_count if price is not None else None,
        stock=gpu.stock,
        vram_gb=gpu.memory_gb * config.gpu_count,
    )


def _unknown(key: str, value: str, valid: Iterable[str]) -> str | None:
    names = list(valid)
    if value in names:
        return None
    near = difflib.get_close_matches(value, names, n=3, cutoff=0.3)
    return f"{key}: RunPod has no `{value}`." + (f" Nearest: {', '.join(near)}." if near else "")


def _gpu(item: Mapping[str, Any]) -> Gpu:
    price = item.get("price") or {}
    return Gpu(
        id=str(item["id"]),
        memory_gb=int(item.get("memory") or 0),
        usd_per_hour={
            tier.upper(): float(price[tier]) for tier in ("secure", "community") if price.get(tier)
        },
        stock=str(item.get("availability") or "unknown"),
        data_centers=tuple(str(dc["id"]) for dc in item.get("dataCenters") or []),
    )


def _templates(api: RunpodApi) -> dict[str, str]:
    """The official templates; without them the rest of the catalog is still good."""
    try:
        found = api.get("/v2/catalog/templates", source="official").get("templates") or []
    except ProviderError:
        return {}
    return {str(item["id"]): str(item.get("name", "")) for item in found}
