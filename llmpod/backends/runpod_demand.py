"""Not a choice: what the configured model asks of a machine, from the hub (else the built-in table) and the arguments.

The settings that the estimate stands on are either the user's own ``vllm_args`` or passed to vLLM explicitly, since
vLLM's defaults differ between GPUs (``max_num_batched_tokens`` is 8192 on large ones and 2048 on the others).
"""

from dataclasses import dataclass, replace
from typing import Protocol

from llmpod.backends import vram
from llmpod.backends.hub import Repo
from llmpod.backends.hub_texts import Unmeasured
from llmpod.backends.runpod_gpus import incapable, usable_gib
from llmpod.backends.runpod_models import KNOWN
from llmpod.backends.vram import Load, Need, Shape, UnknownShape
from llmpod.config import AUTO_GPU, PodConfig
from llmpod.config.server_args import option, share, whole_number
from llmpod.errors import ProviderUnavailable

_LARGE_GIB = 70.0  # from here on, A100 excepted, vLLM batches 8192 tokens unless told otherwise
_LARGE_BATCH = 8192
_OWN_GPU = "Name the GPU with gpu_type_id"


class LooksUp(Protocol):
    """Who knows models; see :class:`llmpod.backends.hub.Hub`."""

    def look_up(self, repo_id: str, revision: str = "") -> Repo: ...


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of the model's size.

    Args:
        shape: for the estimate.
        stored_bytes: what a pod downloads.
        source: who says so, in words.
    """

    shape: Shape
    stored_bytes: int
    source: str


@dataclass(frozen=True, slots=True)
class Fit:
    """How a model sits on one machine. ``obstacle`` is why it cannot be there, whatever the memory."""

    need: Need
    usable: float
    obstacle: str = ""

    @property
    def spare(self) -> float:
        """GiB that are left on each GPU; negative when it is too small."""
        return self.usable * self.need.load.utilization - self.need.total

    @property
    def ok(self) -> bool:
        return not self.obstacle and self.spare >= 0

    @property
    def reason(self) -> str:
        """In a few words, for a table."""
        if self.obstacle:
            return self.obstacle
        if self.spare < 0:
            return f"too small by {-self.spare:.1f} GiB"
        return f"{self.need.total:.1f} of {self.usable * self.need.load.utilization:.1f} GiB"

    def __str__(self) -> str:
        room = self.usable * self.need.load.utilization
        verb = "fits" if self.spare >= 0 else "is more than"
        return f"{self.need}; {verb} {self.usable:.1f} x {self.need.load.utilization:g} = {room:.1f}"


@dataclass(frozen=True, slots=True)
class Demand:
    """What the model asks of each machine.

    Args:
        model: what is known of it.
        load: what the server is set up for.
        fixed_batch: whether ``load.batched_tokens`` is told to vLLM; else it follows the GPU.
        formats: of the numbers that the GPU must compute with.
    """

    model: Model
    load: Load
    fixed_batch: bool
    formats: tuple[str, ...] = ()

    def fit(self, gpu_id: str, memory_gb: int, count: int) -> Fit:
        """How it would sit on so many of these GPUs."""
        usable = usable_gib(gpu_id, memory_gb)
        load = self.load
        if not self.fixed_batch and usable >= _LARGE_GIB and "A100" not in gpu_id:
            load = replace(load, batched_tokens=_LARGE_BATCH)
        obstacle = incapable(gpu_id, *self.formats) or self.model.shape.not_parallel(count)
        return Fit(vram.need(self.model.shape, load, count), usable, obstacle)


def model_of(config: PodConfig, hub: LooksUp) -> Model:
    """What the hub says of the configured model, else what is remembered of it.

    Raises:
        BadSpec: there is no such model.
        Unmeasured: its size cannot be told.
        BadCredentials: it is gated.
        ProviderUnavailable: the hub is away, and nothing is remembered.
    """
    repo_id, _, revision = config.hub_id.partition("@")
    try:
        repo = hub.look_up(repo_id, revision)
    except ProviderUnavailable as e:
        return _remembered(repo_id, e)
    try:
        shape = vram.shape(repo.config, repo.weights_bytes)
    except UnknownShape as e:
        raise Unmeasured(f"The memory that {repo_id} needs is not known: {e}.", hint=f"{_OWN_GPU}.") from None
    loaded = _loaded_bytes(repo, wide=_dtype(config, shape) == "float32", packed=bool(shape.quantization))
    source = f"the hub, revision {repo.revision[:8]}"
    return Model(replace(shape, weights_bytes=loaded), repo.stored_bytes, source)


def _loaded_bytes(repo: Repo, *, wide: bool, packed: bool) -> int:
    """vLLM loads floats of 32 bits as 16, unless it is told to use 32, or the model is quantized."""
    if packed:
        return repo.weights_bytes
    short = repo.weights_bytes - repo.float32_bytes
    return 2 * short + repo.float32_bytes if wide else short + repo.float32_bytes // 2


def _remembered(repo_id: str, away: ProviderUnavailable) -> Model:
    shape = KNOWN.get(repo_id)
    if shape is None:
        raise ProviderUnavailable(
            f"{away.message} {repo_id} is none of the models that are known without it.",
            hint=f"{_OWN_GPU}, or try again later.",
            retry_after=away.retry_after,
        )
    return Model(shape, shape.weights_bytes, f"the built-in table, approximate ({away.message})")


def demand(config: PodConfig, model: Model) -> Demand:
    """What this model asks of a machine under this configuration.

    Raises:
        Unmeasured: nobody says how long a context may be.
    """
    args, shape = config.vllm_args, model.shape
    context = whole_number(option(args, "--max-model-len")) or config.max_model_len or shape.context
    if not context:
        raise Unmeasured(
            "Neither the model nor the configuration says how long its context is.",
            hint="Set max_model_len.",
            param="max_model_len",
        )
    seats = whole_number(option(args, "--max-num-seqs")) or vram.BATCHED_REQUESTS
    batch = whole_number(option(args, "--max-num-batched-tokens"))
    own = max(vram.BATCHED_TOKENS, 0 if shape.generates else context)
    cache = option(args, "--kv-cache-dtype") or "auto"
    load = Load(
        context=context,
        requests=min(config.concurrent_requests, seats),
        batched_tokens=batch or own,
        utilization=utilization(config),
        kv_bytes=1 if cache.startswith("fp8") else 4 if _dtype(config, shape) == "float32" else 2,
    )
    formats = option(args, "--quantization", "-q") or shape.quantization or _dtype(config, shape)
    return Demand(
        model,
        load,
        fixed_batch=batch is not None or config.gpu_type_id == AUTO_GPU,
        formats=(formats, *(("fp8",) if cache.startswith("fp8") else ())),
    )


def utilization(config: PodConfig) -> float:
    """The share of a GPU's memory that vLLM is told to use."""
    given = share(option(config.vllm_args, "--gpu-memory-utilization"))
    return given or config.gpu_memory_utilization or vram.UTILIZATION


def batch_args(config: PodConfig, load: Load) -> tuple[str, ...]:
    """The settings that the estimate stands on, as arguments, but for those that the user gave."""
    settings = {
        "--max-num-batched-tokens": str(load.batched_tokens),
        "--max-num-seqs": str(vram.BATCHED_REQUESTS),
        "--gpu-memory-utilization": f"{load.utilization:g}",
    }
    given = config.vllm_args
    return tuple(
        word for name, value in settings.items() if option(given, name) is None for word in (name, value)
    )


def _dtype(config: PodConfig, shape: Shape) -> str:
    """The type of the numbers that are computed with; vLLM makes 16 bits of 32 unless it is told not to."""
    given = option(config.vllm_args, "--dtype") or "auto"
    if given == "auto":
        return "float16" if shape.dtype == "float32" else shape.dtype
    return {"half": "float16", "float": "float32"}.get(given, given)
