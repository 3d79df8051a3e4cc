"""Not an image builder and not compose: containers as machines, through the engine's own list of them.

A container bears our labels, so the engine is the truth and nothing is kept here. Creating one takes two calls,
create and start; whatever the second leaves behind is removed, or seen by a later list.
"""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from llmpod.backends.docker_api import Answer, Cut, Engine, container, log_text
from llmpod.backends.local_port import HOST, free_port
from llmpod.backends.machines import brief
from llmpod.config import DockerSection
from llmpod.errors import BadSpec, CreateUnknown, ProviderError, ProviderUnavailable
from llmpod.model import Instance, Listing, Observed, Offer, Spec
from llmpod.text import one_line

MACHINE, PORT, DIGEST = "llmpod.machine", "llmpod.port", "llmpod.digest"
INSIDE_PORT = 8000
STOP_MARGIN_SECONDS = 20.0
UNSTARTED_SECONDS = 60.0
_TRANSIENT = ("already allocated", "address already in use", "timeout", "deadline exceeded")
_OBSERVED = {
    "created": Observed.STARTING,
    "configured": Observed.STARTING,
    "initialized": Observed.STARTING,
    "running": Observed.RUNNING,
    "paused": Observed.RUNNING,
    "restarting": Observed.RUNNING,
    "removing": Observed.EXITED,
    "exited": Observed.EXITED,
    "stopped": Observed.EXITED,
    "dead": Observed.BROKEN,
}


class Containers:
    """Containers of one engine.

    Args:
        section: which image, and how it is to be run.
        engine: the engine.
        clock: epoch seconds.
    """

    def __init__(
        self, section: DockerSection, engine: Engine, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._section = section
        self._engine = engine
        self._clock = clock

    def list(self, expect: Collection[str]) -> Listing:  # noqa: ARG002 - an engine's list does not lag
        query: dict[str, str | int] = {"all": 1, "filters": json.dumps({"label": [MACHINE]})}
        answer = self._engine.ask("GET", "/containers/json", query)
        found = answer.document
        if answer.status != 200 or not isinstance(found, list):
            raise ProviderUnavailable(f"The engine does not list its containers: {answer.message}")
        return Listing(tuple(self._instance(item) for item in found), self._clock())

    def create(
        self,
        spec: Spec,
        offer: Offer,  # noqa: ARG002 - there is one place
        name: str,
        env: Mapping[str, str],
        *,
        deadline: float,  # noqa: ARG002 - a container has no switch; it costs nothing
    ) -> Instance:
        port = free_port(self._section.port)
        body = self._body(spec, name, env, port=port)
        try:
            answer = self._engine.ask("POST", "/containers/create", {"name": name}, body=body)
        except Cut as e:
            raise CreateUnknown(e.message) from None
        container_id = self._created(answer, name)
        if body["HostConfig"]["DeviceRequests"]:
            self._check_gpus(container_id)
        self._start(container_id)
        labels = body["Labels"]
        return self._instance(
            {"Id": container_id, "Labels": labels, "State": "running", "Created": self._clock()}
        )

    def destroy(self, instance_id: str) -> bool:
        patience = int(self._section.stop_seconds)
        stopped = self._engine.ask(
            "POST",
            container(instance_id, "/stop"),
            {"t": patience},
            seconds=patience + STOP_MARGIN_SECONDS,
        )
        if stopped.status == 404:
            return False
        return self._remove(instance_id)

    def tail(self, instance_id: str, lines: int) -> Sequence[str]:
        """The last lines of its output, oldest first."""
        return tail(self._engine, instance_id, lines)

    def close(self) -> None:
        """Connections last for one request."""

    # --- creating
    def _body(self, spec: Spec, name: str, env: Mapping[str, str], *, port: int) -> dict[str, Any]:
        section = self._section
        inside = (HOST, port) if section.network == "host" else ("0.0.0.0", INSIDE_PORT)  # noqa: S104 - published on loopback only
        key = dict.fromkeys(section.api_key_env, env["VLLM_API_KEY"])
        host: dict[str, Any] = {
            "NetworkMode": section.network,
            "Binds": list(section.mounts),
            "DeviceRequests": _gpus(section.gpus),
        }
        if section.shm_gb is not None:
            host["ShmSize"] = int(section.shm_gb * 2**30)
        if section.network != "host":
            host["PortBindings"] = {f"{INSIDE_PORT}/tcp": [{"HostIp": HOST, "HostPort": str(port)}]}
        body: dict[str, Any] = {
            "Image": section.image,
            "Cmd": list(section.words(*inside)),
            "Env": [f"{name}={value}" for name, value in {**section.env, **spec.env, **key}.items()],
            "ExposedPorts": {f"{INSIDE_PORT}/tcp": {}} if section.network != "host" else {},
            "Labels": {MACHINE: name, PORT: str(port), DIGEST: spec.digest},
            "HostConfig": host,
        }
        return body if section.entrypoint is None else {**body, "Entrypoint": list(section.entrypoint)}

    def _created(self, answer: Answer, name: str) -> str:
        found = answer.document
        if answer.status == 201 and isinstance(found, dict) and found.get("Id"):
            return str(found["Id"])
        if answer.status == 404:
            raise BadSpec(
                f"The engine has no image {self._section.image} ({answer.message}).",
                hint=f"Pull it first: docker pull {self._section.image}",
            )
        if answer.status in (400, 403, 406, 422):
            raise BadSpec(f"The engine refuses the container: {answer.message}")
        raise CreateUnknown(
            f"The engine answered {answer.status} to the creation of {name}: {answer.message}"
        )

    def _check_gpus(self, container_id: str) -> None:
        """That the request for GPUs was heard: podman's socket drops it without a word (4.3; its issue 19338).

        Raises:
            BadSpec: it was not, and the container is gone again.
            CreateUnknown: nobody says, or it may be there.
        """
        try:
            found = self._engine.ask("GET", container(container_id, "/json"))
        except ProviderUnavailable as e:
            raise CreateUnknown(e.message) from None
        host = found.document.get("HostConfig") if isinstance(found.document, dict) else None
        if found.status != 200 or not isinstance(host, dict):
            raise CreateUnknown(f"The engine does not show the container that it made: {found.message}")
        if host.get("DeviceRequests"):
            return
        why = "This engine takes no GPUs through its socket, and would start the model without any."
        self._undo(container_id, why)
        raise BadSpec(
            why,
            hint="With podman, make the container yourself (`podman create --device nvidia.com/gpu=all …`)"
            " and name it in `docker.container`.",
        )

    def _start(self, container_id: str) -> None:
        """Raises BadSpec or ProviderUnavailable when it is gone again, CreateUnknown when it may be there."""
        try:
            answer = self._engine.ask("POST", container(container_id, "/start"))
        except ProviderUnavailable as e:
            raise CreateUnknown(e.message) from None
        if answer.status in (204, 304):
            return
        why = f"The container does not start: {answer.message}"
        self._undo(container_id, why)
        if any(word in why.lower() for word in _TRANSIENT):
            raise ProviderUnavailable(why, retry_after=10)
        hint = "For GPUs the engine needs NVIDIA's container toolkit." if "device driver" in why else ""
        raise BadSpec(why, hint=hint)

    def _undo(self, container_id: str, why: str) -> None:
        """Raises CreateUnknown, with the reason, when it may still be there."""
        try:
            self._remove(container_id)
        except ProviderError:
            raise CreateUnknown(why) from None

    def _remove(self, ref: str) -> bool:
        answer = self._engine.ask("DELETE", container(ref), {"force": 1, "v": 1})
        if answer.status in (204, 200, 409):  # 409: its removal is under way
            return True
        if answer.status == 404:
            return False
        raise ProviderUnavailable(f"The container {ref[:40]} cannot be removed: {answer.message}")

    # --- looking
    def _instance(self, item: Mapping[str, Any]) -> Instance:
        labels, container_id = item.get("Labels") or {}, str(item.get("Id"))
        born = item.get("Created")
        created = float(born) if isinstance(born, int | float) else None
        state = str(item.get("State") or "").lower()
        observed = _OBSERVED.get(state, Observed.BROKEN)
        if observed is Observed.STARTING and created and self._clock() - created > UNSTARTED_SECONDS:
            observed = Observed.BROKEN  # the pass that made it died before it could start it
        port = str(labels.get(PORT) or "")
        return Instance(
            id=container_id,
            name=one_line(str(labels.get(MACHINE) or ""), 200),
            observed=observed,
            usd_per_hour=0.0,
            base_url=f"http://{HOST}:{port}" if port.isdecimal() else None,
            container_up=observed is Observed.RUNNING,
            created_at=created,
            gpu="container",
            detail=self._detail(container_id, state, observed),
            digest=str(labels.get(DIGEST) or ""),
            key_optional=not self._section.require_key,
            ping_path=self._section.ping_path or "",
        )

    def _detail(self, container_id: str, state: str, observed: Observed) -> str:
        if observed in (Observed.RUNNING, Observed.STARTING):
            return ""
        return ending(self._engine, container_id, state)


def ending(engine: Engine, ref: str, state: str) -> str:
    """How a container that does not run came to that, with its last lines."""
    try:
        found = engine.ask("GET", container(ref, "/json")).document
        lines = tail(engine, ref, 3)
    except ProviderError:
        return f"the container is {state}"
    how = found.get("State") if isinstance(found, dict) else None
    how = how if isinstance(how, dict) else {}
    memory = ", out of memory" if how.get("OOMKilled") else ""
    trouble = f", {one_line(str(how['Error']), 200)}" if how.get("Error") else ""
    return f"the container is {state}, exit code {how.get('ExitCode')}{memory}{trouble}{brief(lines)}"


def tail(engine: Engine, ref: str, lines: int) -> list[str]:
    """The last lines of a container's output, oldest first; none where it has no log."""
    answer = engine.ask("GET", container(ref, "/logs"), {"stdout": 1, "stderr": 1, "tail": lines})
    if answer.status != 200:
        return []
    shown = [one_line(line) for line in log_text(answer.content).splitlines()]
    return [line for line in shown if line.strip()]


def _gpus(wanted: str | int | tuple[str, ...] | None) -> list[dict[str, Any]]:
    """The engine's DeviceRequests: all, so many, or those with these ids."""
    if wanted is None:
        return []
    request: dict[str, Any] = {"Driver": "", "Capabilities": [["gpu"]]}
    if wanted == "all":
        return [{**request, "Count": -1}]
    return (
        [{**request, "Count": wanted}]
        if isinstance(wanted, int)
        else [{**request, "DeviceIDs": list(wanted)}]
    )
