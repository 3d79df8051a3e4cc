"""Not the loader: what may stand in ``pod_config.json``, key by key, with types, bounds and defaults.

The flat keys describe one model, which is the model ``default`` of :class:`llmpod.config.Config`.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from llmpod.config.front import FrontKeys
from llmpod.config.section import Name, Section, Token
from llmpod.config.ways import (
    BILLED,
    RENTED,
    SECTIONS,
    DockerSection,
    ProcessSection,
    ServerlessSection,
    SlurmSection,
    StaticSection,
)
from llmpod.model import EventKind

Seconds = Annotated[int, Field(ge=0, le=31 * 24 * 3600)]
HubId = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9][\w.\-]*(/[\w.\-]+)?(@[\w.\-/]+)?$")]

DEFAULT_IMAGE = "vllm/vllm-openai:v0.29.0"
DEFAULT_GPUS = ("NVIDIA RTX A6000", "NVIDIA A40", "NVIDIA L40S")
VLLM_PRESET = "vllm"
AUTO_GPU = "auto"


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


class PodConfig(FrontKeys):
    """The keys of ``pod_config.json``. Unknown keys are refused; values are not converted (``"8000"`` is wrong)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    schema_ref: str | None = Field(None, alias="$schema", description="For editors; ignored.")

    # what to run
    model: HubId | None = Field(
        None, description="Hugging Face id of the model, `org/name` or `org/name@revision`."
    )
    modelStoreId: HubId | None = Field(  # noqa: N815 - the mission fixed this spelling
        None, description="Alias of a Hugging Face id; alternative to `model`."
    )
    served_model_name: Name | None = Field(
        None, description="Name that clients send as `model`; the model id by default."
    )
    max_model_len: Annotated[int, Field(ge=1)] | None = Field(None, description="Context length in tokens.")
    vllm_args: tuple[str, ...] = Field((), strict=False, description="More arguments for `vllm serve`.")
    hf_token: Token | None = Field(
        None, description="Hugging Face token for gated models; better given as HF_TOKEN."
    )

    # where to run it
    backend: Literal["runpod", "runpod_serverless", "demo", "process", "docker", "slurm", "static"] = Field(
        "runpod", description="How the model is run; `demo` is the bundled simulator: free, local."
    )
    runpod_serverless: ServerlessSection | None = Field(
        None, description="For the backend `runpod_serverless`: an endpoint that exists."
    )
    process: ProcessSection | None = Field(None, description="For the backend `process`: a local command.")
    docker: DockerSection | None = Field(None, description="For the backend `docker`: a container.")
    slurm: SlurmSection | None = Field(None, description="For the backend `slurm`: a job on a cluster.")
    static: StaticSection | None = Field(
        None, description="For the backend `static`: somebody else's server."
    )
    gpu_type_id: Name | Annotated[tuple[Name, ...], Field(min_length=1, strict=False)] = Field(
        DEFAULT_GPUS,
        description="RunPod GPU type id, a list in order of preference, or `auto`: the cheapest that fits the model.",
    )
    gpu_count: Annotated[int, Field(ge=1, le=16)] = Field(1, description="GPUs per pod.")
    cloud: Literal["SECURE", "COMMUNITY"] = Field("SECURE", description="RunPod cloud tier.")
    data_center_ids: tuple[Name, ...] = Field(
        (), strict=False, description="Only these data centers; empty: any."
    )
    template_id: Name = Field(
        VLLM_PRESET, description="`vllm`: our built-in preset; else a RunPod template id."
    )
    image: Name = Field(DEFAULT_IMAGE, description="Container image of the built-in preset.")
    gpu_memory_utilization: Annotated[float, Field(gt=0.1, le=0.98)] | None = Field(
        None, description="Share of GPU memory that vLLM may use; vLLM's own default when absent."
    )
    concurrent_requests: Annotated[int, Field(ge=1, le=1024)] = Field(
        4, description="For `auto`: requests of full context length whose KV cache must fit at once."
    )
    disk_gb: Annotated[int, Field(ge=20, le=4000)] | None = Field(
        None,
        description="Container disk in GB; sized from the weights when absent (100 when their size is unknown).",
    )
    network_volume_id: Name | None = Field(
        None, description="Network volume mounted at /workspace for the weights."
    )
    min_cuda_version: Annotated[str, Field(pattern=r"^\d+\.\d+$")] | None = Field(
        None, description="CUDA floor of the host; read from the image's tag when absent."
    )

    # how long
    runtime_seconds: Annotated[int, Field(ge=60, le=10 * 366 * 24 * 3600)] = Field(
        3600, description="Hard limit of one run, counted from its creation; at most 31 days of a pod."
    )
    startup_timeout_seconds: Annotated[int, Field(ge=1, le=10 * 366 * 24 * 3600)] = Field(
        2400, description="Budget from creation to the first real answer; after it the pod is terminated."
    )
    initial_wait_seconds: Seconds = Field(
        10, description="A foreground start waits this long before it polls."
    )
    max_startup_attempts: Annotated[int, Field(ge=1)] = Field(
        20, description="A foreground start polls closely this often, then at a slower pace."
    )
    poll_interval_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        5.0, strict=False, description="Pause between two polls of a foreground start."
    )
    max_restarts: Annotated[int, Field(ge=0, le=20)] = Field(
        2, description="Restarts of a failed pod within one run."
    )
    restart_backoff_seconds: Seconds = Field(
        30, description="Pause before the first restart; doubles each time."
    )
    unhealthy_after: Annotated[int, Field(ge=1)] = Field(
        3, description="Failed probes in a row before a restart."
    )
    on_vanished: Literal["down", "restart"] = Field(
        "down", description="What to do when the pod disappears without our doing."
    )
    create_grace_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        600.0, strict=False, description="How long a create without a clear answer is looked for by name."
    )

    heartbeat_seconds: Annotated[int, Field(ge=60, le=24 * 3600)] | None = Field(
        900,
        description="The pod ends itself when it served no authenticated request for so long; null: never.",
    )
    switch_interval_seconds: Annotated[int, Field(ge=1, le=300)] = Field(
        30, description="How often the switch inside the pod looks at its deadline and heartbeat."
    )
    on_config_change: Literal["replace", "keep"] = Field(
        "replace", description="Whether a pod that was made from other settings is replaced."
    )

    # money
    max_hourly_cost: Annotated[float, Field(gt=0, strict=False)] | None = Field(
        None, description="USD per hour; a dearer machine is never taken."
    )
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
    def _one_model(self) -> "PodConfig":
        if (self.model is None) == (self.modelStoreId is None):
            raise ValueError("give exactly one of `model` and `modelStoreId`")
        if self.backend in SECTIONS and getattr(self, self.backend) is None:
            raise ValueError(f"the backend `{self.backend}` needs a section `{self.backend}`")
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
            if not re.match(r"https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/]", url):
                raise ValueError(
                    f"`{name}`: a key must not travel in clear; use https (http on this machine only)"
                )
        if "{{" in self.runpod_proxy_url:
            raise ValueError("`runpod_proxy_url` has single braces: {id} and {port}")
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
