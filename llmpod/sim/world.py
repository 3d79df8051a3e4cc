"""Not HTTP: everything the fake account owns, and what can be done to it."""

import asyncio
import secrets
import string as letters
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmpod.sim.behavior import Behavior
from llmpod.sim.catalog import Used
from llmpod.sim.clock import Clock
from llmpod.sim.faults import FaultQueue
from llmpod.sim.placement import check_money, image_is_missing, place, template_of
from llmpod.sim.pods import Pod, container_config
from llmpod.sim.problems import NO_POD, NOT_RESUMED, Problem
from llmpod.sim.runner import Runner
from llmpod.sim.scripted import Reaper
from llmpod.sim.serverless import Endpoint, Options

_ALLOWED = {
    "start": ("EXITED", "ERROR"),
    "stop": ("PROVISIONING", "STARTING", "RUNNING"),
    "restart": ("RUNNING",),
}
_NEEDS_RESET = {
    "image",
    "args",
    "cmd",
    "entrypoint",
    "disk",
    "ports",
    "env",
    "registry",
    "mounts",
    "templateId",
}


@dataclass(frozen=True)
class Call:
    """One API call, as tests count them."""

    method: str
    path: str
    status: int
    at: float

    def shown(self) -> dict[str, Any]:
        return {"method": self.method, "path": self.path, "status": self.status, "at": self.at}


class World:
    """The account of one key: pods dead and alive, the clock, the behaviour, the faults that wait.

    Args:
        key: the account's API key.
        behavior: in force until told otherwise.
        inline: whether model servers run in this event loop instead of processes.
    """

    def __init__(self, key: str, behavior: Behavior, *, inline: bool) -> None:
        self.key = key
        self.first_behavior = self.behavior = behavior
        self.clock = Clock()
        self.faults = FaultQueue()
        self.calls: list[Call] = []
        self.runners: dict[str, Runner] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.invoke_url = ""
        """Where serverless endpoints are invoked."""
        self._inline = inline
        self._reaper = Reaper()
        self._endings: set[asyncio.Task[None]] = set()

    # --- looking
    @property
    def pods(self) -> list[Pod]:
        """All pods that ever were, oldest first."""
        return [runner.pod for runner in self.runners.values()]

    def used(self) -> list[Used]:
        """What the live pods occupy."""
        now = self.clock.now()
        return [
            Used(pod.gpu["id"], pod.gpu["count"], pod.cloud, pod.center)
            for pod in self.pods
            if pod.gpu and pod.running(now)
        ]

    def spent(self) -> float:
        """USD of all pods until now."""
        now = self.clock.now()
        return sum(pod.usd(now) for pod in self.pods)

    def listed(self) -> list[dict[str, Any]]:
        """What LIST shows, newest first, with its lags."""
        now = self.clock.now()
        shown = [pod for pod in self.pods if pod.visible_at <= now < pod.listed_until]
        return [_as_seen(pod).shown(now) for pod in reversed(shown)]

    def found(self, pod_id: str) -> dict[str, Any]:
        """What GET shows, with its lags. Raises Problem 404."""
        now = self.clock.now()
        runner = self.runners.get(pod_id)
        if runner is None or not runner.pod.visible_at <= now < runner.pod.found_until:
            raise Problem(404, NO_POD)
        return _as_seen(runner.pod).shown(now)

    def alive(self, pod_id: str) -> Runner:
        """The pod that is not deleted. Raises Problem 404."""
        runner = self.runners.get(pod_id)
        if runner is None or runner.pod.terminated_at is not None:
            raise Problem(404, NO_POD)
        return runner

    # --- doing
    def create(self, body: Mapping[str, Any]) -> Pod:
        """A new pod. Raises Problem for every reason there is not to have one."""
        behavior = self.behavior
        config = container_config(dict(body), template_of(body))
        doomed = image_is_missing(config["image"], behavior)
        where = place(body, config, self.used(), behavior)
        check_money(where.cost, self.spent(), behavior)
        pod = self._new(body, config, where.center, cost=where.cost)
        pod.doomed = doomed
        runner = Runner(pod, self.clock, self._reaper, inline=self._inline)
        self.runners[pod.id] = runner
        runner.begin()
        return pod

    def phantom(self, body: Mapping[str, Any]) -> Pod:
        """A pod that is answered and never exists (skypilot#7336)."""
        config = container_config(dict(body), template_of(body))
        where = place(body, config, self.used(), self.behavior)
        return self._new(body, config, where.center, cost=where.cost)

    def terminate(self, pod_id: str) -> None:
        """Delete. Raises Problem 404 when it is deleted already."""
        runner = self.alive(pod_id)
        pod, now = runner.pod, self.clock.now()
        pod.terminated_at = now
        pod.listed_until = now + self.behavior.delete_lag_seconds
        pod.found_until = pod.listed_until if self.behavior.delete_lag_get else now
        ending = asyncio.create_task(runner.end())  # the answer does not wait for the container
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def act(self, pod_id: str, action: str) -> Pod:
        """start, stop or restart. Raises Problem: 404, 409 for the wrong state, 400 when there is no free GPU."""
        runner = self.alive(pod_id)
        pod, now = runner.pod, self.clock.now()
        status = pod.status(now)
        if status not in _ALLOWED[action]:
            raise Problem(409, f"action '{action}' is not valid for a pod in status {status}")
        if action == "start" and self.behavior.resume_fails:
            raise Problem(400, NOT_RESUMED)
        if action == "stop":
            pod.close_run(now)
            pod.stopped_at = now
            await runner.end()
            return pod
        if action == "start" and self.behavior.zero_gpus and pod.gpu:
            pod.gpu["count"] = 0
        await self._reset(runner)
        return pod

    async def update(self, pod_id: str, body: Mapping[str, Any]) -> Pod:
        """Change what the body names. Raises Problem: 404. Container settings reset a running container."""
        runner = self.alive(pod_id)
        pod = runner.pod
        template = template_of(body) if body.get("templateId") else {}
        before = {key: value for key, value in pod.config.items() if key not in ("cmd", "entrypoint")}
        command = {key: pod.config[key] for key in ("cmd", "entrypoint")}
        if {"args", "cmd", "entrypoint"} & body.keys():
            command = (
                {} if "args" in body else {key: value for key, value in command.items() if key not in body}
            )
        pod.config = container_config({**before, **command, **template, **body}, {})
        pod.name = body.get("name", pod.name)
        pod.locked = body.get("locked", pod.locked)
        pod.networking = body.get("globalNetworking", pod.networking)
        if _NEEDS_RESET & body.keys() and pod.running(self.clock.now()):
            await self._reset(runner)
        return pod

    def endpoint(self, options: Options) -> Endpoint:
        """A new serverless endpoint, parked, as if somebody had made it in the console."""
        made = Endpoint(
            f"ep{secrets.token_hex(5)}", f"rpa_ENDPOINT{secrets.token_hex(12)}", options, self.clock
        )
        self.endpoints[made.id] = made
        return made

    async def reset(self) -> None:
        """Forget everything: pods, endpoints, calls, faults; the behaviour of the start is in force again."""
        await self.close()
        self.runners.clear()
        self.endpoints.clear()
        self.calls.clear()
        self.faults.clear()
        self.behavior = self.first_behavior

    async def close(self) -> None:
        """End every container."""
        if self._endings:
            await asyncio.wait(self._endings)
        await asyncio.gather(*(runner.end() for runner in self.runners.values()))
        await asyncio.gather(*(endpoint.close() for endpoint in self.endpoints.values()))
        await self._reaper.close()

    async def _reset(self, runner: Runner) -> None:
        """A new run of the same pod."""
        pod, now = runner.pod, self.clock.now()
        await runner.end()
        pod.close_run(now)
        pod.started_at, pod.stopped_at, pod.restarted_at = now, None, None
        runner.begin()

    def _new(self, body: Mapping[str, Any], config: dict[str, Any], center: str, *, cost: float) -> Pod:
        now = self.clock.now()
        gpu = {"id": body["gpu"]["id"], "count": int(body["gpu"].get("count", 1))} if "gpu" in body else None
        cpu = {**body["cpu"], "memory": int(body["cpu"]["vcpuCount"]) * 2} if "cpu" in body else None
        alphabet = letters.ascii_lowercase + letters.digits
        return Pod(
            id="".join(secrets.choice(alphabet) for _ in range(14)),
            name=body["name"],
            config=config,
            gpu=gpu,
            cpu=cpu,
            cloud=body.get("cloud", "SECURE"),
            center=center,
            cost=cost,
            behavior=self.behavior,
            created_at=now,
            started_at=now,
            key=f"rpa_POD{secrets.token_hex(16)}",
            visible_at=now + self.behavior.listing_lag_seconds,
            networking=body.get("globalNetworking", False),
        )


def _as_seen(pod: Pod) -> Pod:
    """A deleted pod that still shows looks as it did before."""
    return replace(pod, terminated_at=None) if pod.terminated_at is not None else pod
