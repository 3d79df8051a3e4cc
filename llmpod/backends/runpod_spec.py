"""Not a pod: what the configuration asks for, as one value that is the same for every attempt."""

import hashlib
import json
import math
import re
from dataclasses import replace

from llmpod.backends.runpod_demand import Demand, batch_args
from llmpod.config import AUTO_GPU, VLLM_PRESET, PodConfig
from llmpod.config.server_args import option
from llmpod.model import Offer, Spec

PORT = 8000
UNKNOWN_DISK_GB = 100
LEAST_DISK_GB = 50
_IMAGE_GB = 25  # vllm/vllm-openai unpacked, with some for logs and compiled kernels
_SPARE_GB = 10
# CUDA of vllm/vllm-openai's images without a suffix, by vLLM version: 13.0 since v0.20 (vllm#42738).
_CUDA_SINCE = (((0, 20), "13.0"), ((0, 11), "12.9"), ((0, 9), "12.8"), ((0, 0), "12.4"))
_PARALLEL = (
    "--tensor-parallel-size",
    "-tp",
    "--pipeline-parallel-size",
    "-pp",
    "--data-parallel-size",
    "-dp",
)


def pod_spec(
    config: PodConfig,
    offers: tuple[Offer, ...],
    rejected: tuple[Offer, ...] = (),
    *,
    demand: Demand | None = None,
) -> Spec:
    """What to create.

    Args:
        config: the configuration.
        offers: the machines to try, in this order.
        rejected: those that are not tried, each with the reason in its note.
        demand: what the model asks of a machine, when that is known.
    """
    preset = config.template_id == VLLM_PRESET
    home = "/workspace/hf" if config.network_volume_id else "/root/.cache/huggingface"
    env = {"HF_HOME": home, **({"HF_TOKEN": config.hf_token.reveal()} if config.hf_token else {})}
    stored = demand.model.stored_bytes if demand else None
    return Spec(
        model=config.hub_id,
        served_name=config.served_model_name or config.hub_id.partition("@")[0],
        image=config.image if preset else "",
        args=_vllm_args(config, demand) if preset else tuple(config.vllm_args),
        port=PORT,
        disk_gb=disk_gb(config, stored),
        offers=offers,
        cloud=config.cloud,
        data_centers=config.data_center_ids,
        env=env,
        template_id=None if preset else config.template_id,
        min_cuda=cuda_floor(config),
        network_volume_id=config.network_volume_id,
        rejected=rejected,
        weights_bytes=stored,
        heartbeat_seconds=config.heartbeat_seconds,
        switch_interval_seconds=config.switch_interval_seconds,
        digest=digest(config),
    )


def on_machine(spec: Spec, offer: Offer) -> Spec:
    """The specification for one machine: with several GPUs vLLM must be told to use them all."""
    given = option(spec.args, *_PARALLEL) is not None
    if offer.count == 1 or given or spec.template_id is not None:
        return spec
    return replace(spec, args=(*spec.args, "--tensor-parallel-size", str(offer.count)))


def disk_gb(config: PodConfig, stored_bytes: int | None) -> int:
    """Container disk in GB: image, weights with room for a second attempt at a file, and something to spare.

    With a network volume the weights are not on it. RunPod finds no host for very small disks.
    """
    if config.disk_gb is not None:
        return config.disk_gb
    if config.network_volume_id:
        return LEAST_DISK_GB
    if stored_bytes is None:
        return UNKNOWN_DISK_GB
    return max(LEAST_DISK_GB, math.ceil(stored_bytes / 1e9 * 1.3) + _SPARE_GB + _IMAGE_GB)


def cuda_floor(config: PodConfig) -> str | None:
    """The CUDA version that a host's driver must have, else the container fails after the bill has begun.

    The configured one; else what the image's tag says (``…-cu129``); else what vLLM's own images of that version
    are built for, of an unknown tag (``latest``, ``nightly``) the newest known. Of foreign images and templates: none.
    """
    if config.min_cuda_version:
        return config.min_cuda_version
    if config.template_id != VLLM_PRESET:
        return None
    name, _, tag = config.image.partition("@")[0].rpartition(":")
    if named := re.search(r"(?:^|[-_.])cu(\d{2})(\d)\b", tag):
        return f"{named[1]}.{named[2]}"
    if not name.endswith("vllm/vllm-openai") and tag != "vllm/vllm-openai":
        return None
    version = re.match(r"v(\d+)\.(\d+)", tag)
    known = (int(version[1]), int(version[2])) if version else _CUDA_SINCE[0][0]
    return next(cuda for since, cuda in _CUDA_SINCE if known >= since)


def _vllm_args(config: PodConfig, demand: Demand | None) -> tuple[str, ...]:
    """Arguments of ``vllm serve`` (the image's entry point); the model is the first one, the user's are the last."""
    hub_id, _, revision = config.hub_id.partition("@")
    args = [hub_id, "--host", "0.0.0.0", "--port", str(PORT)]  # noqa: S104 - inside the pod, key-protected
    args += ["--served-model-name", config.served_model_name or hub_id]
    if revision:
        args += ["--revision", revision]
    if config.max_model_len:
        args += ["--max-model-len", str(config.max_model_len)]
    if demand and config.gpu_type_id == AUTO_GPU:
        args += batch_args(config, demand.load)
    elif config.gpu_memory_utilization and option(config.vllm_args, "--gpu-memory-utilization") is None:
        args += ["--gpu-memory-utilization", f"{config.gpu_memory_utilization:g}"]
    return (*args, *config.vllm_args)


_SHAPING = (
    "model",
    "modelStoreId",
    "served_model_name",
    "max_model_len",
    "vllm_args",
    "gpu_type_id",
    "gpu_count",
    "cloud",
    "data_center_ids",
    "template_id",
    "image",
    "gpu_memory_utilization",
    "concurrent_requests",
    "disk_gb",
    "network_volume_id",
    "min_cuda_version",
    "heartbeat_seconds",
    "switch_interval_seconds",
)


def digest(config: PodConfig) -> str:
    """Names those settings that a pod is made from; another digest means that it should be another pod.

    Settings at their defaults are left out: a new version with more of them must not replace what runs.
    """
    shape = config.model_dump(mode="json", include=set(_SHAPING), exclude_defaults=True)
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]
