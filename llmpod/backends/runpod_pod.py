"""Not a decision maker: RunPod GPU pods as a backend, and the pod that our vLLM preset describes."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

from llmpod.backends.runpod_api import RunpodApi, path_id
from llmpod.config import VLLM_PRESET, PodConfig, Secret
from llmpod.errors import BadSpec, NotFound
from llmpod.model import Instance, Observed, Offer, Spec

PORT = 8000
_OBSERVED = {
    "PROVISIONING": Observed.STARTING,
    "STARTING": Observed.STARTING,
    "RUNNING": Observed.RUNNING,
    "EXITED": Observed.EXITED,
    "ERROR": Observed.BROKEN,
}


class RunpodPods:
    """Pods of one RunPod account.

    Args:
        config: gives the API's address and the pattern of a pod's public URL.
        key: the account's key.
    """

    def __init__(self, config: PodConfig, key: Secret) -> None:
        self._api = RunpodApi(config.runpod_api_url, key)
        self._url = config.runpod_proxy_url

    def __repr__(self) -> str:
        return f"RunpodPods({self._api})"

    @property
    def api(self) -> RunpodApi:
        """The connection, for catalog and logs."""
        return self._api

    def list(self, expect: Collection[str]) -> list[Instance]:
        pods = {str(pod.get("id")): pod for pod in self._api.pages("/v2/pods", "pods")}
        for missing in set(expect) - set(pods):
            try:
                pods[missing] = self._api.get(f"/v2/pods/{path_id(missing)}")
            except NotFound:
                continue
        return [self._instance(pod) for pod in pods.values() if pod.get("status") != "TERMINATED"]

    def create(self, spec: Spec, offer: Offer, name: str, env: Mapping[str, str]) -> Instance:
        body = _body(spec, offer, name, env)
        try:
            return self._instance(self._api.create("/v2/pods", body))
        except NotFound as e:
            raise BadSpec(e.message, hint="The template or network volume does not exist.") from None
        except BadSpec as e:
            if "'cmd'" not in e.message:
                raise
        # Servers of before September 2026 know the command only in its stored form; a 422 created nothing.
        body["args"] = json.dumps({"cmd": body.pop("cmd")})
        return self._instance(self._api.create("/v2/pods", body))

    def destroy(self, instance_id: str) -> bool:
        return self._api.delete(f"/v2/pods/{path_id(instance_id)}")

    def close(self) -> None:
        self._api.close()

    def logs(self, instance_id: str, *, source: str, tail: int, read_seconds: float) -> Iterator[str]:
        """Log lines, oldest first; ends when none came for ``read_seconds``.

        Args:
            instance_id: the pod.
            source: ``container`` or ``system`` (image pull progress).
            tail: how many past lines, at most 5000.
            read_seconds: how long to wait for another line.
        """
        path = f"/v2/pods/{path_id(instance_id)}/logs"
        for line in self._api.stream(path, read_seconds=read_seconds, source=source, tail=str(tail)):
            if line.startswith("data:"):
                yield _log_text(line.removeprefix("data:"))

    def _instance(self, pod: Mapping[str, Any]) -> Instance:
        """Read tolerantly: older servers send fewer fields, and ``RUNNING`` says nothing about the container."""
        pod_id = str(pod.get("id"))
        runtime, gpu = _mapping(pod.get("runtime")), _mapping(pod.get("gpu"))
        count = gpu.get("count")
        observed = _OBSERVED.get(str(pod.get("status")), Observed.STARTING)
        if observed is Observed.RUNNING and count == 0:
            observed = Observed.BROKEN
        return Instance(
            id=pod_id,
            name=str(pod.get("name") or ""),
            observed=observed,
            usd_per_hour=float(pod["cost"]) if isinstance(pod.get("cost"), int | float) else None,
            base_url=self._url.replace("{id}", pod_id).replace("{port}", str(PORT)),
            container_up=bool(runtime),
            uptime_seconds=float(runtime["uptime"]) if "uptime" in runtime else None,
            created_at=_epoch(pod.get("createdAt")),
            gpu=gpu.get("id"),
            gpu_count=count,
            detail="it has no GPU" if count == 0 else f"status {pod.get('status')}",
        )


def pod_spec(config: PodConfig, offers: tuple[Offer, ...]) -> Spec:
    """What the configuration asks for, as the same value for every attempt."""
    hub_id, _, revision = config.hub_id.partition("@")
    served = config.served_model_name or hub_id
    preset = config.template_id == VLLM_PRESET
    args = _vllm_args(config, hub_id, revision) if preset else tuple(config.vllm_args)
    home = "/workspace/hf" if config.network_volume_id else "/root/.cache/huggingface"
    env = {"HF_HOME": home, **({"HF_TOKEN": config.hf_token} if config.hf_token else {})}
    content = json.dumps(
        [config.hub_id, served, config.image, args, config.disk_gb, config.cloud, config.gpus]
    )
    return Spec(
        model=config.hub_id,
        served_name=served,
        image=config.image if preset else "",
        args=args,
        port=PORT,
        disk_gb=config.disk_gb,
        offers=offers,
        cloud=config.cloud,
        data_centers=config.data_center_ids,
        env=env,
        template_id=None if preset else config.template_id,
        min_cuda=config.min_cuda_version,
        network_volume_id=config.network_volume_id,
        digest=hashlib.sha256(content.encode()).hexdigest()[:16],
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


def _body(spec: Spec, offer: Offer, name: str, env: Mapping[str, str]) -> dict[str, Any]:
    """The create request. ``gpu.count`` is always sent: without it RunPod answered "no instances available"."""
    gpu: dict[str, Any] = {"id": offer.gpu, "count": offer.count}
    if spec.min_cuda:
        gpu["minCudaVersion"] = spec.min_cuda
    body: dict[str, Any] = {
        "name": name,
        "cloud": spec.cloud,
        "gpu": gpu,
        "disk": spec.disk_gb,
        "ports": [f"{spec.port}/http"],
        "env": {**spec.env, **env},
    }
    if spec.template_id:
        body["templateId"] = spec.template_id
    else:
        body["image"] = spec.image
    if spec.args:
        body["cmd"] = list(spec.args)
    if spec.data_centers:
        body["dataCenterIds"] = list(spec.data_centers)
    if spec.network_volume_id:
        body["mounts"] = {"network": [{"volumeId": spec.network_volume_id, "path": "/workspace"}]}
    return body


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _epoch(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _log_text(data: str) -> str:
    try:
        value = json.loads(data)
    except ValueError:
        return data.strip()
    return str(value.get("line", "")) if isinstance(value, dict) else data.strip()
