"""Not the catalog's content: reads what a catalog request asks for and answers it."""

import re
from collections.abc import Callable
from typing import Any

from llmpod.sim import catalog
from llmpod.sim.catalog import Query
from llmpod.sim.problems import Problem, invalid
from llmpod.sim.world import World

Answer = Callable[[], dict[str, Any]]
_PRODUCTS = {"POD", "CLUSTER", "SERVERLESS"}
_STOCK_ONLY = ("product", "count", "cloud", "countryCodes", "cudaVersions", "minCudaVersion")


def find(parts: list[str], query: dict[str, str], world: World) -> Answer | None:
    """What answers this path below /v2/catalog; None: there is no such path."""
    match parts:
        case ["gpus"]:
            return lambda: {
                "gpus": [entry for gpu in catalog.GPUS for entry in _gpu(gpu, query, world, drop=True)]
            }
        case ["gpus", name]:
            return lambda: _one(_gpu(name, query, world, drop=False))
        case ["cpus"]:
            return lambda: {"cpus": catalog.cpu_entries()}
        case ["cpus", name]:
            return lambda: _one([entry for entry in catalog.cpu_entries() if entry["id"] == name])
        case ["datacenters"]:
            return lambda: {"dataCenters": [_center(name, query, world) for name in catalog.CENTERS]}
        case ["datacenters", name]:
            return lambda: _one([_center(name, query, world)] if name in catalog.CENTERS else [])
        case ["templates"]:
            return lambda: _templates(query)
    return None


def _one(entries: list[dict[str, Any]]) -> dict[str, Any]:
    if not entries:
        raise Problem(404, "resource not found")
    return entries[0]


def _gpu(name: str, query: dict[str, str], world: World, *, drop: bool) -> list[dict[str, Any]]:
    """The entry of one GPU type; none when it is unknown or, with `drop`, in none of the wanted countries."""
    gpu = catalog.GPUS.get(name)
    if gpu is None:
        return []
    asked = _stock_query(query)
    if asked is None:
        return [catalog.gpu_entry(gpu, None, Query())]
    counts = catalog.stock(gpu, asked, world.used(), world.behavior)
    if drop and not counts:
        return []
    return [catalog.gpu_entry(gpu, counts, asked)]


def _stock_query(query: dict[str, str]) -> Query | None:
    """None without `include`. Raises Problem 400 for parameters that contradict each other, 422 for malformed ones."""
    include = query.get("include")
    if include is None:
        if stray := [name for name in _STOCK_ONLY if name in query]:
            raise Problem(400, f"{stray[0]} requires include=AVAILABILITY")
        return None
    if include != "AVAILABILITY":
        raise invalid("query.include: value must be one of 'AVAILABILITY'")
    products = query.get("product", "")
    if not products:
        raise Problem(400, "include=AVAILABILITY requires product")
    if not set(products.split(",")) <= _PRODUCTS:
        raise invalid("query.product: value must be one of 'POD', 'CLUSTER', 'SERVERLESS'")
    if "cudaVersions" in query and "minCudaVersion" in query:
        raise Problem(400, "cudaVersions and minCudaVersion are mutually exclusive")
    return Query(
        count=int(_matching(query, "count", r"[1-9]\d*", default="1")),
        cloud=_matching(query, "cloud", "SECURE|COMMUNITY", default="SECURE"),
        countries=tuple(filter(None, _matching(query, "countryCodes", r"[A-Z]{2}(,[A-Z]{2})*").split(","))),
        exact_cuda=tuple(filter(None, _matching(query, "cudaVersions", r"\d+\.\d+(,\d+\.\d+)*").split(","))),
        least_cuda=_matching(query, "minCudaVersion", r"\d+(\.\d+)?", default="0"),
    )


def _matching(query: dict[str, str], name: str, pattern: str, *, default: str = "") -> str:
    value = query.get(name, default)
    if name in query and not re.fullmatch(pattern, value):
        raise invalid(f"query.{name}: malformed value")
    return value


def _center(name: str, query: dict[str, str], world: World) -> dict[str, Any]:
    include = query.get("include")
    if include is None:
        return catalog.center_entry(name, None)
    if include != "GPU_AVAILABILITY":
        raise invalid("query.include: value must be one of 'GPU_AVAILABILITY'")
    used, behavior = world.used(), world.behavior
    counts = {gpu.id: catalog.stock(gpu, Query(), used, behavior)[name] for gpu in catalog.GPUS.values()}
    return catalog.center_entry(name, counts)


def _templates(query: dict[str, str]) -> dict[str, Any]:
    source = query.get("source", "official")
    if source not in ("official", "verified", "community"):
        raise invalid("query.source: value must be one of 'official', 'verified', 'community'")
    templates = list(catalog.TEMPLATES.values()) if source == "official" else []
    return {"templates": templates, "pagination": {"nextCursor": None, "hasNextPage": False}}
