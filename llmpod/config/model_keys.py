"""Not an installation: what may be said of one model, in the flat configuration or in a section of ``models``."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from llmpod.config.demand import DemandKeys
from llmpod.config.rates import RateLimit
from llmpod.config.section import Name, Token
from llmpod.config.ways import DockerSection, ProcessSection, ServerlessSection, SlurmSection, StaticSection

Seconds = Annotated[int, Field(ge=0, le=31 * 24 * 3600)]
HubId = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9][\w.\-]*(/[\w.\-]+)?(@[\w.\-/]+)?$")]

DEFAULT_IMAGE = "vllm/vllm-openai:v0.29.0"
DEFAULT_GPUS = ("NVIDIA RTX A6000", "NVIDIA A40", "NVIDIA L40S")
VLLM_PRESET = "vllm"
AUTO_GPU = "auto"

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,40}$")]
Prefix = Annotated[str, Field(pattern=r"^/[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$")]
FieldName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]


class RouteKeys(DemandKeys):
    """How requests find a model, and what is made of them before it gets them."""

    aliases: tuple[Name, ...] = Field(
        (), strict=False, description="More names that clients may send as `model`."
    )
    path: Prefix | None = Field(
        None, description="Its own address, before `/v1`; `/` and its name in `models` if absent there."
    )
    priority: Annotated[int, Field(ge=-100, le=100)] = Field(
        0, description="Within its group: whose requests wait for a higher one goes first."
    )
    preload: bool = Field(
        False, description="With `on_request`: started with the proxy, before anybody asks."
    )
    defaults: Mapping[FieldName, Any] = Field(
        default_factory=dict, description="Fields that a request gets if it has none, such as `max_tokens`."
    )
    set: Mapping[FieldName, Any] = Field(
        default_factory=dict, description="Fields that every request gets, whatever it says itself."
    )
    strip: tuple[FieldName, ...] = Field((), strict=False, description="Fields that no request keeps.")
    system_prompt: Annotated[str, Field(min_length=1, max_length=100_000)] | None = Field(
        None, description="Put before the messages of a chat that brings no system message of its own."
    )
    rate_limit: RateLimit | None = Field(
        None, description="That each caller (or address, or all) may send to this model and use of it."
    )


class ModelKeys(RouteKeys):
    """One model: what runs, where, how long, and at what price."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    # what to run
    model: HubId | None = Field(
        None, description="Hugging Face id of the model, `org/name` or `org/name@revision`."
    )
    modelStoreId: HubId | None = Field(  # noqa: N815 - the mission fixed this spelling
        None, description="Alias of a Hugging Face id; alternative to `model`."
    )
    served_model_name: Name | None = Field(
        None,
        description="Name that clients send as `model`; the model id by default. `*`: whatever the server lists.",
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
