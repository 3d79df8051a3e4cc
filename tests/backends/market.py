"""A market to choose from, with no I/O: the simulator's GPU types at their prices, in stock unless told otherwise."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from llmpod.backends.runpod_catalog import Catalog, Gpu
from llmpod.backends.runpod_demand import Demand, Model, demand
from llmpod.backends.runpod_offers import Choice, offers
from llmpod.backends.vram import Shape
from llmpod.config import PodConfig, parse
from llmpod.model import Offer
from llmpod.sim import catalog as simulated

NOW = 1_700_000_000.0
SEVEN = Shape(15_200_000_000, 32, 32, 8, 128, 32768)
SEVENTY = Shape(141_000_000_000, 80, 64, 8, 128, 131072)


def configured(**fields: object) -> PodConfig:
    document = {"model": "org/m", "gpu_type_id": "auto", "max_model_len": 8192, **fields}
    return parse(document, path=Path("/nowhere/pod_config.json"), environ={}).common


def gpu(id_: str, *, words: Mapping[str, Mapping[str, str]] | None = None, **changes: object) -> Gpu:
    """A GPU type of the simulator's, HIGH in stock everywhere unless told otherwise."""
    known = simulated.GPUS[id_]
    plenty = {str(count): {"*": "HIGH", "EU-RO-1": "HIGH"} for count in (1, 2, 4, 8)}
    made = Gpu(
        id_,
        known.memory,
        {"SECURE": known.secure} | ({"COMMUNITY": known.community} if known.community else {}),
        {"SECURE": known.most, "COMMUNITY": known.most if known.community else 0},
        stock={**plenty, **(words or {})},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def catalog(*special: Gpu, fetched_at: float | None = NOW, cloud: str = "SECURE") -> Catalog:
    named = {one.id: one for one in special}
    return Catalog(
        tuple(named.get(id_) or gpu(id_) for id_ in simulated.GPUS), ("EU-RO-1",), {}, fetched_at, cloud
    )


def wants(config: PodConfig, shape: Shape = SEVEN) -> Demand:
    return demand(config, Model(shape, shape.weights_bytes, "a test"))


def choose(
    config: PodConfig,
    offered: Catalog | None = None,
    *,
    shape: Shape | None = SEVEN,
    refused: Mapping[str, float] | None = None,
) -> Choice:
    need = wants(config, shape) if shape else None
    return offers(config, offered or catalog(), need, refused=refused or {}, now=NOW)


def names(found: tuple[Offer, ...]) -> list[str]:
    return [offer.gpu for offer in found]


def why(choice: Choice, name: str) -> str:
    return next(offer.note for offer in choice.rejected if offer.gpu == name)
