"""Not the scheduler: the keys of ``pod_config.json`` that say when requests start and stop a model."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from llmpod.errors import ConfigError

Loading = Literal["auto", "hold", "text", "refuse"]
ClientName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\x20-\x7e]+$")]
LoadingByClient = Loading | dict[ClientName, Loading]

IDLE_SECONDS = 1800
MOST_IDLE_SECONDS: Final = 31 * 24 * 3600
START_TIMEOUT_SECONDS = 300.0
_WAYS: tuple[Loading, ...] = get_args(Loading)


class DemandKeys(BaseModel):
    """When a model starts and stops by itself, and what a client is given meanwhile."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    start: Literal["always", "on_request"] = Field(
        "always", description="`on_request`: it is started by the first request that needs it."
    )
    idle_seconds: Annotated[int, Field(ge=1, le=MOST_IDLE_SECONDS)] | None = Field(
        None,
        description="With `on_request`: it is stopped so long after its last byte, with nothing in flight;"
        " 1800 if absent.",
    )
    start_timeout_seconds: Annotated[float, Field(gt=0, le=24 * 3600)] = Field(
        START_TIMEOUT_SECONDS,
        strict=False,
        description="How long a request waits for a start; the start goes on without it.",
    )
    wake_on_request: bool = Field(
        False, description="Whether a request may start what costs money, within the budget."
    )
    loading: LoadingByClient = Field(
        "auto",
        description="What a request gets while its model starts: one word, or one for each client"
        " (the beginning of its User-Agent; `*`: the others).",
    )

    @property
    def on_request(self) -> bool:
        """Whether requests start it and silence stops it."""
        return self.start == "on_request"

    @property
    def idle_limit(self) -> float:
        """Seconds from the last byte to the stop."""
        return float(self.idle_seconds or IDLE_SECONDS)


@dataclass(frozen=True, slots=True)
class Demand:
    """What the proxy is told of a model that requests start. Times in seconds; ``group``: see the scheduler.

    ``may_wake``: the manager would start it for a request, whatever that costs.
    """

    idle_seconds: float = float(IDLE_SECONDS)
    start_timeout_seconds: float = START_TIMEOUT_SECONDS
    group: str = ""
    priority: int = 0
    preload: bool = False
    may_wake: bool = True


# --- in the environment ------------------------------------------------------------------------------------
def loading_text(loading: LoadingByClient) -> str:
    """As ``read_loading`` takes it."""
    return loading if isinstance(loading, str) else json.dumps(loading, sort_keys=True)


def read_loading(name: str, text: str) -> Mapping[str, str]:
    """A word, or a JSON object of them by the beginning of a User-Agent. Raises ConfigError."""
    if text.strip() in _WAYS:
        return {"*": text.strip()}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not all(way in _WAYS for way in value.values()):
        raise ConfigError(
            f"{name}={text!r} is neither one of {', '.join(_WAYS)} nor a JSON object of them by client.",
            hint='Example: {"*": "hold", "Kilo-Code": "text"}',
            param=name,
        )
    return {str(client): str(way) for client, way in value.items()}


def demand_text(demand: Mapping[str, Demand]) -> str:
    """As ``read_demand`` takes it; empty when no model starts with requests."""
    return json.dumps({name: asdict(one) for name, one in demand.items()}, sort_keys=True) if demand else ""


def read_demand(name: str, text: str) -> Mapping[str, Demand]:
    """A JSON object of :class:`Demand` by model. Raises ConfigError."""
    try:
        return {model: Demand(**fields) for model, fields in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"{name} is not what the manager writes there.", param=name) from None
