"""Not a choice of machines: what to create where there is one place to run a model and nothing to buy."""

import hashlib
import json

from llmpod.config import PodConfig
from llmpod.model import Offer, Spec

_SWITCHED = (
    "process",
    "slurm",
)  # whose machines end themselves at their deadline, with nobody left to end them


def plain_spec(config: PodConfig) -> Spec:
    """What to create on a backend without a market; its own section says the rest."""
    return Spec(
        model=config.hub_id,
        served_name=config.served_model_name or config.hub_id.partition("@")[0],
        image="",
        args=(),
        port=0,
        disk_gb=0,
        offers=(Offer(config.backend, usd_per_hour=0.0, key=config.backend),),
        env={"HF_TOKEN": config.hf_token.reveal()} if config.hf_token else {},
        digest=digest(config),
        has_switch=config.backend in _SWITCHED,
    )


def digest(config: PodConfig) -> str:
    """Names the settings that a machine is made from; another digest means that it should be another machine."""
    names = {"model", "modelStoreId", "served_model_name", "backend", config.backend}
    shape = config.model_dump(mode="json", include=names, exclude_defaults=True)
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]
