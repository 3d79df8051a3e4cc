"""Not the wiring: what the lifecycle is told of one model, from its configuration."""

from collections.abc import Callable, Mapping

from llmpod.config import PodConfig
from llmpod.lifecycle.act import Managed
from llmpod.lifecycle.decide import Policy
from llmpod.lifecycle.wish import Terms
from llmpod.model import Spec


def managed(config: PodConfig, digest: str, draw: Callable[[Mapping[str, float]], Spec]) -> Managed:
    """What the lifecycle needs to know of one model.

    Args:
        config: its configuration.
        digest: names what its machines are made from.
        draw: says what to create.
    """
    secret: dict[str, bool | set[str]] = {
        "hf_token": True,
        "schema_ref": True,
        "notifications": True,
        "process": {"env"},
        "docker": {"env"},
        "slurm": {"env"},
    }
    snapshot = config.model_dump(mode="json", exclude=secret, exclude_defaults=True)
    policy = Policy(
        runtime_seconds=config.runtime_seconds,
        startup_timeout_seconds=config.startup_timeout_seconds,
        max_restarts=config.max_restarts,
        restart_backoff_seconds=config.restart_backoff_seconds,
        unhealthy_after=config.unhealthy_after,
        restart_vanished=config.on_vanished == "restart",
        create_grace_seconds=config.create_grace_seconds,
        expiring_soon_seconds=config.expiring_soon_seconds,
        max_usd_per_hour=config.max_hourly_cost,
        digest=digest if config.on_config_change == "replace" else "",
    )
    return Managed(
        digest=digest,
        model=config.hub_id,
        served_name=config.served_model_name or config.hub_id.partition("@")[0],
        policy=policy,
        draw=draw,
        config=snapshot,
        key_file=_key_file(config),
        terms=Terms(config.on_request, config.is_billed, config.wake_on_request, config.idle_limit),
        holds=_holds(config),
    )


def _holds(config: PodConfig) -> str:
    """What exists once, and is opened and closed: the endpoint or container that it names; empty: nothing."""
    if config.runpod_serverless is not None and config.backend == "runpod_serverless":
        return f"endpoint {config.runpod_serverless.endpoint_id}"
    if config.docker is not None and config.backend == "docker" and config.docker.container is not None:
        return f"container {config.docker.container}"
    return ""


def _key_file(config: PodConfig) -> str | None:
    """Where the key of a server is that is not ours; None: we make the key."""
    if config.static is not None and config.backend == "static":
        return str(config.static.api_key_file or "")
    if config.runpod_serverless is not None and config.backend == "runpod_serverless":
        return str(config.runpod_serverless.api_key_file)
    return None
