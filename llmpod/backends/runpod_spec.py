"""Not a pod: what the configuration asks for, as one value that is the same for every attempt."""

import hashlib
import json

from llmpod.config import VLLM_PRESET, PodConfig
from llmpod.model import Offer, Spec

PORT = 8000
DEFAULT_DISK_GB = 100
DEFAULT_CUDA = "12.8"


def pod_spec(config: PodConfig, offers: tuple[Offer, ...]) -> Spec:
    """What the configuration asks for, as the same value for every attempt."""
    hub_id, _, revision = config.hub_id.partition("@")
    served = config.served_model_name or hub_id
    preset = config.template_id == VLLM_PRESET
    args = _vllm_args(config, hub_id, revision) if preset else tuple(config.vllm_args)
    home = "/workspace/hf" if config.network_volume_id else "/root/.cache/huggingface"
    env = {"HF_HOME": home, **({"HF_TOKEN": config.hf_token} if config.hf_token else {})}
    return Spec(
        model=config.hub_id,
        served_name=served,
        image=config.image if preset else "",
        args=args,
        port=PORT,
        disk_gb=config.disk_gb or DEFAULT_DISK_GB,
        offers=offers,
        cloud=config.cloud,
        data_centers=config.data_center_ids,
        env=env,
        template_id=None if preset else config.template_id,
        min_cuda=config.min_cuda_version or DEFAULT_CUDA,
        network_volume_id=config.network_volume_id,
        heartbeat_seconds=config.heartbeat_seconds,
        switch_interval_seconds=config.switch_interval_seconds,
        digest=digest(config),
    )


def _vllm_args(config: PodConfig, hub_id: str, revision: str) -> tuple[str, ...]:
    """Arguments of ``vllm serve`` (the image's entry point); the model is the first one."""
    args = [hub_id, "--host", "0.0.0.0", "--port", str(PORT)]  # noqa: S104 - inside the pod, key-protected
    args += ["--served-model-name", config.served_model_name or hub_id]
    if revision:
        args += ["--revision", revision]
    if config.max_model_len:
        args += ["--max-model-len", str(config.max_model_len)]
    if config.gpu_count > 1:
        args += ["--tensor-parallel-size", str(config.gpu_count)]
    return (*args, *config.vllm_args)


_SHAPING = (
    "model",
    "modelStoreId",
    "served_model_name",
    "max_model_len",
    "vllm_args",
    "hf_token",
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
    """Names those settings that a pod is made from; another digest means that it should be another pod."""
    shape = [getattr(config, name) for name in _SHAPING]
    return hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:16]
