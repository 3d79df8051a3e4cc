"""Not a decision maker: RunPod GPU pods as a backend."""

import json
import math
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from llmpod.backends import runpod_switch
from llmpod.backends.runpod_api import RunpodApi, path_id
from llmpod.backends.runpod_spec import PORT, on_machine
from llmpod.backends.runpod_switch import Switch
from llmpod.config import PodConfig
from llmpod.errors import BadSpec, NotFound
from llmpod.model import Instance, Listing, Observed, Offer, Spec
from llmpod.secret import Secret
from llmpod.text import one_line

DIGEST = "LLMPOD_DIGEST"  # in the pod's environment: which configuration it was made from
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
        config: gives the API's address, the pattern of a pod's public URL and the startup budget.
        key: the account's key.
    """

    def __init__(self, config: PodConfig, key: Secret) -> None:
        self._api = RunpodApi(config.runpod_api_url, key)
        self._api_url = config.runpod_api_url
        self._url = config.runpod_proxy_url
        self._startup_seconds = config.startup_timeout_seconds

    def __repr__(self) -> str:
        return f"RunpodPods({self._api})"

    @property
    def api(self) -> RunpodApi:
        """The connection, for catalog and logs."""
        return self._api

    def list(self, expect: Collection[str]) -> Listing:
        pods = {str(pod.get("id")): pod for pod in self._api.pages("/v2/pods", "pods")}
        for missing in set(expect) - set(pods):
            try:
                pods[missing] = self._api.get(f"/v2/pods/{path_id(missing)}")
            except NotFound:
                continue
        there = (self._instance(pod) for pod in pods.values() if pod.get("status") != "TERMINATED")
        return Listing(tuple(there), self._api.said_at)

    def create(
        self, spec: Spec, offer: Offer, name: str, env: Mapping[str, str], *, deadline: float
    ) -> Instance:
        spec = on_machine(spec, offer)
        body = _body(spec, offer, name, {**env, **self._armed(spec, deadline), DIGEST: spec.digest})
        try:
            return self._instance(self._api.create("/v2/pods", body))
        except NotFound as e:
            raise BadSpec(e.message, hint="The template or network volume does not exist.") from None
        except BadSpec as e:
            if "'cmd'" not in e.message and "'entrypoint'" not in e.message:
                raise
        # Servers of before September 2026 know the command only in its stored form; a 422 created nothing.
        stored = {key: body.pop(key) for key in ("entrypoint", "cmd") if key in body}
        return self._instance(self._api.create("/v2/pods", {**body, "args": json.dumps(stored)}))

    def _armed(self, spec: Spec, deadline: float) -> dict[str, str]:
        """The dead-man's switch's settings, when the pod has one."""
        if not runpod_switch.can_arm(spec):
            return {}
        switch = Switch(
            deadline=deadline,
            api_url=self._api_url,
            interval_seconds=spec.switch_interval_seconds,
            heartbeat_seconds=spec.heartbeat_seconds,
            boot_seconds=self._startup_seconds,
        )
        return switch.env

    def destroy(self, instance_id: str) -> bool:
        return self._api.delete(f"/v2/pods/{path_id(instance_id)}")

    def close(self) -> None:
        self._api.close()

    def _instance(self, pod: Mapping[str, Any]) -> Instance:
        """Read tolerantly: older servers send fewer fields, and ``RUNNING`` says nothing about the container."""
        pod_id = str(pod.get("id"))
        runtime, gpu = _mapping(pod.get("runtime")), _mapping(pod.get("gpu"))
        count = _number(gpu.get("count"))
        observed = _OBSERVED.get(str(pod.get("status")), Observed.STARTING)
        if observed is Observed.RUNNING and count == 0:
            observed = Observed.BROKEN
        return Instance(
            id=pod_id,
            name=one_line(str(pod.get("name") or ""), 200),
            observed=observed,
            usd_per_hour=_number(pod.get("cost")),
            base_url=self._url.replace("{id}", pod_id).replace("{port}", str(PORT)),
            container_up=bool(runtime),
            uptime_seconds=_number(runtime.get("uptime")),
            created_at=_epoch(pod.get("createdAt")),
            gpu=one_line(str(gpu["id"]), 100) if gpu.get("id") else None,
            gpu_count=None if count is None else int(count),
            detail="it has no GPU" if count == 0 else one_line(f"status {pod.get('status')}", 100),
            switch_at=_switch_at(pod),
            digest=str(_mapping(pod.get("env")).get(DIGEST) or ""),
        )


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
    if runpod_switch.can_arm(spec):
        body |= runpod_switch.command(spec.args)
    elif spec.args:
        body["cmd"] = list(spec.args)
    if spec.data_centers:
        body["dataCenterIds"] = list(spec.data_centers)
    if spec.network_volume_id:
        body["mounts"] = {"network": [{"volumeId": spec.network_volume_id, "path": "/workspace"}]}
    return body


def _switch_at(pod: Mapping[str, Any]) -> float | None:
    """The deadline that its switch was armed with; RunPod tells the environment in clear."""
    text = str(_mapping(pod.get("env")).get(runpod_switch.DEADLINE) or "")
    return float(text) if text.isdecimal() else None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    """A finite number of at least 0, also as text; None for anything else: one odd field must not hide a pod."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _epoch(text: object) -> float | None:
    try:
        at = datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return at if at > 0 else None  # Go's zero time means that nobody said
