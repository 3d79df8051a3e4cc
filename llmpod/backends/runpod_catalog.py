"""Not a promise of stock: what RunPod says it has and asks for it, and how the configuration's ids compare.

Source: ``GET /v2/catalog/gpus`` and ``/datacenters`` (api-reference-v2). Prices are list prices in USD per hour
for one GPU; the billed rate is the pod's own ``cost``. Stock moves within seconds.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llmpod.backends.runpod_api import RunpodApi
from llmpod.backends.runpod_gpus import CARDS
from llmpod.backends.runpod_spec import cuda_floor
from llmpod.config import VLLM_PRESET, PodConfig
from llmpod.errors import ProviderError

STOCK_ORDER = ("HIGH", "MEDIUM", "LOW", "unknown", "NONE")
FRESH_SECONDS = 600.0
ANYWHERE = "*"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU type.

    Args:
        id: what a pod is created with.
        memory_gb: as advertised, of one.
        usd_per_hour: of one, by cloud tier.
        most: how many a pod can have, by cloud tier; 0 where it is not sold.
        manufacturer: images for CUDA run on NVIDIA's only.
        stock: by number of GPUs, then by data center (``*``: anywhere); for the catalog's cloud tier.
    """

    id: str
    memory_gb: int
    usd_per_hour: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, int] = field(default_factory=dict)
    manufacturer: str = "NVIDIA"
    stock: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def in_stock(self, count: int = 1, centers: Sequence[str] = ()) -> str:
        """The best stock of machines with so many, in these data centers or anywhere."""
        words = self.stock.get(str(count), {})
        anywhere = words.get(ANYWHERE, "unknown")
        if not centers or anywhere in ("NONE", "unknown"):
            return anywhere
        found = [words.get(center, "NONE") for center in centers]
        return min(found, key=STOCK_ORDER.index)

    @property
    def centers(self) -> tuple[str, ...]:
        """Where there is some of it."""
        found = {place for words in self.stock.values() for place, word in words.items() if word != "NONE"}
        return tuple(sorted(found - {ANYWHERE}))


@dataclass(frozen=True, slots=True)
class Catalog:
    """What could be bought. ``fetched_at`` is None for the built-in list, whose prices are unknown."""

    gpus: tuple[Gpu, ...]
    data_centers: tuple[str, ...]
    templates: Mapping[str, str]
    fetched_at: float | None
    cloud: str = "SECURE"

    def gpu(self, gpu_id: str) -> Gpu | None:
        return next((gpu for gpu in self.gpus if gpu.id == gpu_id), None)

    def fresh(self, now: float) -> bool:
        """Whether its stock still says something."""
        return self.fetched_at is not None and 0 <= now - self.fetched_at <= FRESH_SECONDS

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


BUILT_IN = Catalog(tuple(Gpu(name, card.memory_gb) for name, card in CARDS.items()), (), {}, None)


def fetch(api: RunpodApi, config: PodConfig, *, now: float, counts: Sequence[int] = ()) -> Catalog:
    """Ask RunPod.

    Args:
        api: the connection.
        config: gives the cloud tier and the CUDA floor that stock is asked for.
        now: epoch seconds.
        counts: GPUs per machine to ask the stock of; the configured number when empty.

    Raises:
        ProviderError: no usable answer.
    """
    query = {"include": "AVAILABILITY", "product": "POD", "cloud": config.cloud}
    if floor := cuda_floor(config):
        query["minCudaVersion"] = floor
    stock: dict[str, dict[str, dict[str, str]]] = {}
    items: list[Mapping[str, Any]] = []
    for count in counts or (config.gpu_count,):
        items = _objects(api.get("/v2/catalog/gpus", **query, count=str(count)).get("gpus"))
        for item in items:
            stock.setdefault(str(item.get("id")), {})[str(count)] = _stock(item)
    return Catalog(
        gpus=tuple(_gpu(item, stock[str(item.get("id"))]) for item in items),
        data_centers=tuple(str(c.get("id")) for c in _centers(api)),
        templates=_templates(api),
        fetched_at=now,
        cloud=config.cloud,
    )


def from_dict(document: Mapping[str, Any]) -> Catalog:
    """A catalog as :meth:`Catalog.as_dict` wrote it. Raises KeyError or TypeError when it is another thing."""
    return Catalog(
        gpus=tuple(_read_gpu(item) for item in document["gpus"]),
        data_centers=tuple(document["data_centers"]),
        templates=dict(document["templates"]),
        fetched_at=document["fetched_at"],
        cloud=str(document["cloud"]),
    )


def _read_gpu(item: Mapping[str, Any]) -> Gpu:
    gpu = Gpu(**item)
    for words in gpu.stock.values():
        words.items()  # one that is no mapping must not fail later
    return gpu


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


def _unknown(key: str, value: str, valid: Iterable[str]) -> str | None:
    names = list(valid)
    if value in names:
        return None
    near = difflib.get_close_matches(value, names, n=3, cutoff=0.3)
    return f"{key}: RunPod has no `{value}`." + (f" Nearest: {', '.join(near)}." if near else "")


def _gpu(item: Mapping[str, Any], stock: Mapping[str, Mapping[str, str]]) -> Gpu:
    """Read tolerantly: a price of zero stands for a tier where it is not sold."""
    price, most = _mapping(item.get("price")), _mapping(item.get("maxCount"))
    sold = {tier.upper(): item.get(tier) is not False for tier in ("secure", "community")}
    return Gpu(
        id=str(item.get("id")),
        memory_gb=int(item.get("memory") or 0),
        usd_per_hour={
            tier: float(value)
            for tier in sold
            if isinstance(value := price.get(tier.lower()), int | float) and value
        },
        most={tier: int(most.get(tier.lower(), 8)) if there else 0 for tier, there in sold.items()},
        manufacturer=str(item.get("manufacturer") or "NVIDIA"),
        stock=stock,
    )


def _stock(item: Mapping[str, Any]) -> dict[str, str]:
    places = {str(c.get("id")): _word(c.get("availability")) for c in _objects(item.get("dataCenters"))}
    return {ANYWHERE: _word(item.get("availability")), **places}


def _word(value: object) -> str:
    return str(value) if value in STOCK_ORDER else "unknown"


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _centers(api: RunpodApi) -> list[Mapping[str, Any]]:
    return _objects(api.get("/v2/catalog/datacenters").get("dataCenters"))


def _templates(api: RunpodApi) -> dict[str, str]:
    """The official templates; without them the rest of the catalog is still good."""
    try:
        found = api.get("/v2/catalog/templates", source="official").get("templates") or []
    except ProviderError:
        return {}
    return {str(item["id"]): str(item.get("name", "")) for item in found}
