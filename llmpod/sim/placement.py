"""Not a scheduler: whether a create request finds a host, and what it costs, in the order the API complains."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from llmpod.sim import catalog
from llmpod.sim.behavior import Behavior
from llmpod.sim.catalog import Used
from llmpod.sim.problems import NO_DISK, NO_INSTANCES, NO_MONEY, NO_RIGHT, Problem


@dataclass(frozen=True)
class Place:
    """Where a pod goes and its price in USD per hour."""

    center: str
    cost: float


def template_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The container settings of the template that is named. Raises Problem: 404 unknown, 422 for serverless only."""
    name = body.get("templateId")
    if name is None:
        return {}
    template = catalog.TEMPLATES.get(name)
    if template is None:
        raise Problem(404, "template not found")
    if template["serverless"]:
        raise Problem(422, "The template is for serverless endpoints and cannot be used for a pod.")
    keys = ("image", "args", "disk", "ports", "env", "registry", "mounts")
    return {key: template[key] for key in keys}


def image_is_missing(image: str, behavior: Behavior) -> bool:
    """Whether the pod is doomed. Raises Problem 422 when such an image is refused at once."""
    if not any(fnmatchcase(image, pattern) for pattern in behavior.missing_images):
        return False
    if behavior.missing_image == "422":
        raise Problem(422, f"Image {image} was not found in the registry.")
    return True


def place(body: Mapping[str, Any], config: Mapping[str, Any], used: list[Used], behavior: Behavior) -> Place:
    """A host for this pod. Raises Problem: 422, 404, 403, 400."""
    centers = body.get("dataCenterIds") or list(catalog.CENTERS)
    for mount in config["mounts"].get("network") or ():
        home = catalog.VOLUMES.get(mount["volumeId"])
        if home is None:
            raise Problem(404, "network volume not found")
        centers = [center for center in centers if center == home]
    hosts = [center for center in centers if center in catalog.CENTERS]
    if "cpu" in body:
        if body["cpu"]["id"] not in catalog.CPUS:
            raise Problem(422, f"Unknown CPU type: {body['cpu']['id']}")
        return Place(_first(hosts), body["cpu"]["vcpuCount"] * catalog.CPU_PER_VCPU)
    return _gpu_place(body, config["disk"], behavior, hosts=hosts, used=used)


def _gpu_place(
    body: Mapping[str, Any], disk: int, behavior: Behavior, *, hosts: list[str], used: list[Used]
) -> Place:
    request, cloud = body["gpu"], _cloud(body)
    gpu = catalog.GPUS.get(request["id"])
    if gpu is None:
        raise Problem(422, f"Unknown GPU type: {request['id']}")
    if gpu.id in behavior.forbidden_gpus:
        raise Problem(403, NO_RIGHT)
    if disk > behavior.max_disk_gb:
        raise Problem(400, NO_DISK)
    count = int(request.get("count", 1))
    cuda = catalog.cuda_fits(request.get("allowedCudaVersions") or (), request.get("minCudaVersion") or "0")
    blind = "count" not in request and behavior.gpu_count_quirk
    if blind or disk < behavior.min_disk_gb or not cuda or not gpu.price(cloud) or count > gpu.most:
        raise Problem(400, NO_INSTANCES)
    free = {host: catalog.free(Used(gpu.id, 0, cloud, host), used, behavior) for host in hosts}
    return Place(_first([host for host in hosts if free[host] >= count]), round(gpu.price(cloud) * count, 4))


def check_money(cost: float, spent: float, behavior: Behavior) -> None:
    """Raises Problem 402 when less than an hour of this pod is left (doc pods/pricing)."""
    if behavior.balance_usd is not None and behavior.balance_usd - spent < cost:
        raise Problem(402, NO_MONEY)


def _cloud(body: Mapping[str, Any]) -> str:
    return str(body.get("cloud", "SECURE"))


def _first(centers: list[str]) -> str:
    if not centers:
        raise Problem(400, NO_INSTANCES)
    return centers[0]
