"""Not the loader: what may stand in ``pod_config.json``, key by key, with types, bounds and defaults.

The flat keys describe one model, which is the model ``default`` of :class:`llmpod.config.Config`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from llmpod.config.addresses import in_the_clear
from llmpod.config.front import FrontKeys
from llmpod.config.model_keys import AUTO_GPU, ModelKeys, ModelName, Seconds
from llmpod.config.section import Section
from llmpod.config.ways import BILLED, RENTED, SECTIONS
from llmpod.model import EventKind

MAX_RENTED_SECONDS = 31 * 24 * 3600
MAX_STARTUP_SECONDS = 6 * 3600


class Budget(Section):
    """What all models of this installation may spend together; days and months are UTC, as on RunPod's bill."""

    per_day_usd: Annotated[float, Field(gt=0, strict=False)] | None = None
    per_month_usd: Annotated[float, Field(gt=0, strict=False)] | None = None


class Notification(Section):
    """Where to send which events. The URL is a secret: most services know the caller by it."""

    url: Annotated[str, Field(pattern=r"^https?://", repr=False)]
    format: Literal["json", "slack", "discord", "ntfy"] = "json"
    events: tuple[Annotated[EventKind, Field(strict=False)], ...] = Field(tuple(EventKind), strict=False)


class Group(Section):
    """Models of which only one runs at a time, as on a GPU that holds one."""

    members: tuple[ModelName, ...] = Field(min_length=2, strict=False)


class PodConfig(FrontKeys, ModelKeys):
    """The keys of ``pod_config.json``. Unknown keys are refused; values are not converted (``"8000"`` is wrong)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    schema_ref: str | None = Field(None, alias="$schema", description="For editors; ignored.")

    # several models
    models: Annotated[Mapping[ModelName, ModelKeys], Field(strict=False)] = Field(
        default_factory=dict,
        description="Several models by name, each with keys of its own; what stands beside it holds for all.",
    )
    groups: Annotated[Mapping[ModelName, Group], Field(strict=False)] = Field(
        default_factory=dict, description="Of the members of a group one runs at a time."
    )
    default_model: ModelName | None = Field(
        None, description="Which of `models` gets what names none of them; the first one if absent."
    )

    # money
    budget: Budget | None = Field(None, description="USD per day and month for all models together.")

    # who is told
    notifications: tuple[Notification, ...] = Field((), strict=False, description="Webhooks.")
    expiring_soon_seconds: Seconds = Field(
        300, description="How long before the deadline `expiring` is sent."
    )

    # where things are
    state_file: Path = Field(Path("pod_state.json"), strict=False)
    runpod_api_url: Annotated[str, Field(pattern=r"^https?://")] = "https://api.runpod.io"
    runpod_graphql_url: Annotated[str, Field(pattern=r"^https?://")] | None = Field(
        None, description="Where the balance is asked for; `/graphql` of `runpod_api_url` when absent."
    )
    hub_url: Annotated[str, Field(pattern=r"^https?://")] = "https://huggingface.co"
    runpod_proxy_url: Annotated[str, Field(pattern=r"^https?://.*\{id\}.*\{port\}")] = (
        "https://{id}-{port}.proxy.runpod.net"
    )

    @model_validator(mode="after")
    def _named_once(self) -> "PodConfig":
        if self.models and (self.model or self.modelStoreId):
            raise ValueError("`model` stands in each of `models`, not beside them")
        if not self.models and (self.model is None) == (self.modelStoreId is None):
            raise ValueError("give exactly one of `model` and `modelStoreId`")
        if not self.models and self.backend in SECTIONS and getattr(self, self.backend) is None:
            raise ValueError(f"the backend `{self.backend}` needs a section `{self.backend}`")
        return self

    @model_validator(mode="after")
    def _one_model(self) -> "PodConfig":
        if self.is_rented and self.runtime_seconds > MAX_RENTED_SECONDS:
            raise ValueError("`runtime_seconds`: a pod runs for 31 days (2678400) at most")
        if self.is_rented and self.startup_timeout_seconds > MAX_STARTUP_SECONDS:
            raise ValueError("`startup_timeout_seconds`: a pod gets six hours (21600) at most")
        if self.use_https and not (self.ssl_cert and self.ssl_key):
            raise ValueError("`use_https` needs `ssl_cert` and `ssl_key`")
        urls = {name: getattr(self, name) or "" for name in ("runpod_api_url", "hub_url", "runpod_proxy_url")}
        urls["runpod_graphql_url"] = self.graphql_url
        urls |= {f"notifications.{n}.url": target.url for n, target in enumerate(self.notifications)}
        if self.static is not None and self.static.api_key_file is not None:
            urls["static.url"] = self.static.url
        for name, url in urls.items():
            if in_the_clear(url):
                raise ValueError(
                    f"`{name}`: a key must not travel in clear; use https (http on this machine only)"
                )
        if self.static is not None and in_the_clear(self.static.url) and not self.allow_plain_http:
            raise ValueError(
                "`static.url`: over http others can read prompts and answers; use https or a tunnel, or allow it"
                " with `allow_plain_http`"
            )
        if "{{" in self.runpod_proxy_url:
            raise ValueError("`runpod_proxy_url` has single braces: {id} and {port}")
        return self

    @model_validator(mode="after")
    def _can_be_started(self) -> "PodConfig":
        if self.idle_seconds is not None and not self.on_request and not self.models:
            raise ValueError(
                '`idle_seconds` needs `start`: "on_request" (between two reads: `silence_seconds`)'
            )
        if self.on_request and self.backend == "static" and not self.models:
            raise ValueError("`start`: somebody else runs this server, so no request can start it")
        return self

    @property
    def is_rented(self) -> bool:
        """Whether machines are bought by the hour; all else costs nothing that we could count."""
        return self.backend in RENTED

    @property
    def is_billed(self) -> bool:
        """Whether RunPod sends a bill, by the hour or by the second."""
        return self.backend in BILLED

    @property
    def hub_id(self) -> str:
        """The Hugging Face id, revision included."""
        return self.model or self.modelStoreId or ""

    @property
    def graphql_url(self) -> str:
        """RunPod's GraphQL API, which alone knows the balance."""
        return self.runpod_graphql_url or f"{self.runpod_api_url.rstrip('/')}/graphql"

    @property
    def gpus(self) -> tuple[str, ...]:
        """The GPU types by name; empty for ``auto``."""
        if self.gpu_type_id == AUTO_GPU:
            return ()
        return (self.gpu_type_id,) if isinstance(self.gpu_type_id, str) else self.gpu_type_id
