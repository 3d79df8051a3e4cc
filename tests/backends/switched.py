"""Not the manager: pods with a switch as the backend creates them, and then left alone by everybody."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from llmpod.backends.runpod_logs import PodLog
from llmpod.backends.runpod_pod import RunpodPods
from llmpod.config import parse
from llmpod.model import Instance, Offer, Spec
from llmpod.secret import Secret
from llmpod.sim.launch import Simulator
from tests.support import procfs
from tests.support.install import FAST
from tests.support.procfs import PROC
from tests.support.wait import eventually

KEY = "sk-of-the-pod"
MODEL = "org/tiny-chat"
EARLY = 2.0
"""Seconds: the deadline in the pod, its clock and the uptime that it goes by are whole ones."""
LATE = 6.0
"""Seconds that two busy cores may add to whatever is measured."""
TOOLS = ("cat", "date", "grep", "sed", "sleep", "sort", "tr")
KEPT: Mapping[str, Any] = {**FAST, "run_switch": True}


@dataclass
class Pod:
    """One pod whose manager is dead."""

    sim: Simulator
    backend: RunpodPods
    seen: Instance
    deadline: float

    @property
    def id(self) -> str:
        return self.seen.id

    @property
    def facts(self) -> dict[str, Any]:
        return next(pod for pod in self.sim.state()["pods"] if pod["id"] == self.id)

    @property
    def gone(self) -> bool:
        return self.facts["terminated_at"] is not None

    def ends(self, *, within: float) -> float:
        """Waits until it is deleted; the moment by the simulator's clock."""
        eventually(lambda: self.gone, within=within + LATE, every=0.1)
        return float(self.facts["terminated_at"])

    def now(self) -> float:
        return float(self.sim.state()["now"])

    def ask(
        self, path: str = "/v1/models", *, method: str = "GET", key: str | None = KEY, **more: Any
    ) -> int:
        """The status of one request through the proxy host."""
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **more.pop("headers", {})}
        url = f"{self.seen.base_url}{path}"
        return requests.request(method, url, headers=headers, timeout=20, **more).status_code

    def served(self) -> "Pod":
        """Waits until its server answers."""
        eventually(lambda: self.ask() == 200, within=20)
        return self

    def calls(self, method: str) -> list[int]:
        """The statuses of the API calls about this pod."""
        path = f"/v2/pods/{self.id}"
        made = [call for call in self.sim.requests() if call["path"].startswith(path)]
        return [call["status"] for call in made if call["method"] == method]

    def log(self) -> str:
        """What the container printed. Only of a pod that still exists."""
        log = PodLog(self.backend.api, self.id, source="container", tail=500)
        return "\n".join(line.text for line in log.past(quiet_seconds=0.3, within_seconds=5))

    def processes(self) -> list[procfs.Process]:
        """Those of the container."""
        return [
            process
            for process in procfs.descendants(self.sim.pid)
            if b"RUNPOD_POD_ID=" + self.id.encode() in environ(process.pid)
        ]

    @property
    def own_key(self) -> str:
        """The key that RunPod put into this pod."""
        (first, *_) = eventually(self.processes)
        variables = dict(entry.partition(b"=")[::2] for entry in environ(first.pid).split(b"\0"))
        return variables[b"RUNPOD_API_KEY"].decode()


def environ(pid: int) -> bytes:
    """A process's environment; empty when it has just ended."""
    try:
        return (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return b""


@dataclass
class Account:
    """A simulator, and the backend that speaks to it."""

    sim: Simulator

    def backend(self, *, startup_seconds: int = 600) -> RunpodPods:
        document = {
            "model": MODEL,
            "runpod_api_url": self.sim.api_url,
            "runpod_proxy_url": self.sim.proxy_url,
            "startup_timeout_seconds": startup_seconds,
        }
        config = parse(document, path=Path("/nowhere/pod_config.json"), environ={})
        return RunpodPods(config.common, Secret(self.sim.key, "the simulator"))

    def pod(
        self,
        *,
        lasts: float = 600,
        heartbeat: int | None = None,
        startup_seconds: int = 600,
        env: Mapping[str, str] | None = None,
        template_id: str | None = None,
    ) -> Pod:
        """A new pod that looks at its switch every second.

        Args:
            lasts: seconds from now to its deadline.
            heartbeat: seconds, or None for no heartbeat.
            startup_seconds: the configuration's startup budget.
            env: more variables for it.
            template_id: instead of the built-in preset.
        """
        backend = self.backend(startup_seconds=startup_seconds)
        deadline = float(self.sim.state()["now"]) + lasts
        args = (MODEL, "--host", "0.0.0.0", "--port", "8000", "--max-model-len", "4096")  # noqa: S104 - inside the pod
        spec = Spec(
            model=MODEL,
            served_name=MODEL,
            image="" if template_id else "vllm/vllm-openai:v0.29.0",
            args=() if template_id else args,
            port=8000,
            disk_gb=60,
            offers=(),
            env=env or {},
            template_id=template_id,
            heartbeat_seconds=heartbeat,
            switch_interval_seconds=1,
        )
        name = f"a-pod-{len(self.sim.state()['pods'])}"
        made = backend.create(spec, Offer("NVIDIA L4"), name, {"VLLM_API_KEY": KEY}, deadline=deadline)
        return Pod(self.sim, backend, made, deadline)


def tools(directory: Path, *more: str) -> str:
    """A PATH with what every image has, and these."""
    directory.mkdir()
    for name in (*TOOLS, *more):
        found = shutil.which(name)
        assert found, f"this machine has no {name}"
        (directory / name).symlink_to(found)
    return str(directory)


def tool(directory: Path, name: str, script: str) -> None:
    """Another program under that name in a PATH of `tools`."""
    (directory / name).unlink(missing_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (directory / name).chmod(0o755)
