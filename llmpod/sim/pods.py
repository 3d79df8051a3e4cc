"""Not a process: one pod as the API knows it. Status, uptime and money are functions of the clock."""

import math
from dataclasses import dataclass, field
from typing import Any

from llmpod.sim.behavior import Behavior
from llmpod.sim.clock import rfc3339
from llmpod.sim.contract import args_of, command_of

_ACTIONS = {
    "PROVISIONING": ["stop", "terminate"],
    "STARTING": ["stop", "terminate"],
    "RUNNING": ["stop", "restart", "terminate"],
    "EXITED": ["start", "terminate"],
    "ERROR": ["start", "terminate"],
}


@dataclass(frozen=True)
class Address:
    """One entry of `runtime.ports`."""

    private: int
    public: int
    kind: str
    ip: str


@dataclass
class Pod:
    """One pod, from create to long after delete. Moments are seconds of the simulator's clock."""

    id: str
    name: str
    config: dict[str, Any]
    """image, entrypoint, cmd, disk, mounts, ports, env, registry: what the container is made from."""
    gpu: dict[str, Any] | None
    cpu: dict[str, Any] | None
    cloud: str
    center: str
    cost: float
    """USD per hour while it runs."""
    behavior: Behavior
    created_at: float
    started_at: float
    key: str
    """RUNPOD_API_KEY inside the pod: good for stopping and deleting this pod only."""
    doomed: bool = False
    """Its image does not exist: it stops by itself."""
    stopped_at: float | None = None
    terminated_at: float | None = None
    restarted_at: float | None = None
    runs: list[tuple[float, float]] = field(default_factory=list)
    """Start and end of the runs that are over and paid for."""
    visible_at: float = 0.0
    """Not listed and not found before."""
    listed_until: float = math.inf
    found_until: float = math.inf
    locked: bool = False
    networking: bool = False
    addresses: list[Address] = field(default_factory=list)
    requests: int = 0

    # --- moments
    @property
    def up_at(self) -> float:
        """When the container starts; infinite when it never does."""
        return math.inf if self.behavior.stuck else self.started_at + self.behavior.container_seconds

    @property
    def ends_at(self) -> float:
        """When the pod ends by itself; infinite when it does not."""
        if self.doomed:
            return self.started_at + self.behavior.container_seconds
        if self.behavior.error_state or self.behavior.self_exits:
            return self.up_at + self.behavior.fate_seconds
        return math.inf

    def up(self, now: float) -> bool:
        """Whether its container runs."""
        return self.running(now) and now >= self.up_at and not self.doomed

    def running(self, now: float) -> bool:
        """Whether it costs money."""
        return self.terminated_at is None and self.stopped_at is None and now < self.ends_at

    def status(self, now: float) -> str:
        """The word of the API."""
        if self.terminated_at is not None:
            return "TERMINATED"
        if self.stopped_at is not None:
            return "EXITED"
        if now >= self.ends_at:
            return "ERROR" if self.behavior.error_state and not self.doomed else "EXITED"
        if self.behavior.state_mode == "real" or now >= self.up_at:
            return "RUNNING"
        half = self.started_at + self.behavior.container_seconds / 2
        return "STARTING" if now >= half and not self.behavior.stuck else "PROVISIONING"

    def uptime(self, now: float) -> int:
        """Seconds since the container last started."""
        since = self.restarted_at if self.restarted_at is not None else self.up_at
        age = now - since
        return int(age % self.behavior.crash_seconds if self.behavior.crash_loop else age)

    def close_run(self, now: float) -> None:
        """The present run is over, if there is one."""
        if self.stopped_at is None:
            self.runs.append((self.started_at, max(self.started_at, min(now, self.ends_at))))

    def seconds(self, until: float) -> float:
        """How long it has cost money, up to a moment."""
        runs = list(self.runs)
        if self.stopped_at is None:
            end = math.inf if self.terminated_at is None else self.terminated_at
            runs.append((self.started_at, min(end, self.ends_at)))
        return sum(max(0.0, min(end, until) - start) for start, end in runs)

    def usd(self, until: float) -> float:
        """What it has cost, up to a moment."""
        return self.seconds(until) * self.cost / 3600

    # --- what a client sees
    def declared(self, kind: str) -> list[int]:
        """The ports that were declared for `http` or `tcp`; `"8188"` alone declares nothing (live)."""
        pairs = [port.partition("/") for port in self.config["ports"]]
        return [int(number) for number, _, word in pairs if word == kind and number.isdecimal()]

    def shown(self, now: float) -> dict[str, Any]:
        """The pod object of the API."""
        status = self.status(now)
        config, old = self.config, self.behavior.old_payload
        compute = {"gpu": self._gpu(old=old)} if self.gpu else {"cpu": self.cpu}
        command = {} if old else {"cmd": config["cmd"], "entrypoint": config["entrypoint"]}
        return {
            "id": self.id,
            "name": self.name,
            "status": status,
            "actions": [] if status == "TERMINATED" else _ACTIONS[status],
            "image": config["image"],
            "args": args_of(config["entrypoint"], config["cmd"]),
            **command,
            "disk": config["disk"],
            "mounts": config["mounts"],
            "ports": config["ports"],
            "env": config["env"],
            "registry": config["registry"],
            **compute,
            "cloud": self.cloud,
            "dataCenterId": self.center,
            "cudaVersion": "12.8" if self.gpu else None,
            "ssh": {"proxy": None, "direct": None},
            "template": None,
            "cost": self.cost,
            "locked": self.locked,
            "globalNetworking": {"enabled": self.networking},
            "runtime": self._runtime(now),
            "createdAt": rfc3339(self.created_at),
            "startedAt": rfc3339(self.started_at),
        }

    def _gpu(self, *, old: bool) -> dict[str, Any]:
        assert self.gpu is not None
        newer = {} if old else {"vcpuCount": 8.0, "memory": 62.0}
        return {"id": self.gpu["id"], "count": self.gpu["count"], **newer}

    def _runtime(self, now: float) -> dict[str, Any] | None:
        if not self.up(now):
            return None
        count = self.gpu["count"] if self.gpu else 0
        return {
            "uptime": self.uptime(now),
            "cpu": {"util": 0},
            "gpus": [{"util": 0, "memoryUtil": 0}] * count,
            "memory": {"util": 0},
            "ports": [
                {"ip": entry.ip, "private": entry.private, "public": entry.public, "type": entry.kind}
                for entry in self.addresses
            ],
        }


def container_config(body: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """What a container is made from: the body over the template, `env` merged by key (1.3)."""
    merged = {**template, **body}
    command = body if {"args", "cmd", "entrypoint"} & body.keys() else template
    entrypoint, cmd = command.get("entrypoint"), command.get("cmd")
    if command.get("args"):
        entrypoint, cmd = command_of(command["args"])
    return {
        "image": merged.get("image", ""),
        "entrypoint": entrypoint or [],
        "cmd": cmd or [],
        "disk": int(merged.get("disk", 50)),
        "mounts": merged.get("mounts") or {},
        "ports": merged.get("ports") or [],
        "env": {**template.get("env", {}), **body.get("env", {})},
        "registry": merged.get("registry"),
    }
