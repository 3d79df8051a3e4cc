"""Not HTTP: one serverless endpoint of the fake account, its queue and its workers, which come and go by demand.

A request waits for a worker; one is started while there are fewer than `max`, takes its cold start, and ends after
`idle_seconds` without work, but for `min` of them. Parked (max 0) it keeps its queue and has no workers.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

from llmpod.sim.behavior import Behavior
from llmpod.sim.clock import Clock, rfc3339
from llmpod.sim.command import VllmCommand
from llmpod.sim.containers import InlineContainer


@dataclass(frozen=True)
class Options:
    """How an endpoint behaves. Times are seconds."""

    model: str = "org/tiny-chat"
    kind: str = "QUEUE"
    """Or LOAD_BALANCER: other addresses, no `/health` counts."""
    cold_start_seconds: float = 0.3
    idle_seconds: float = 5.0
    drain_seconds: float = 0.0
    """How long its workers go on after it was parked."""
    throttled: bool = False
    """No machine for new workers: they stay THROTTLED."""
    unhealthy: bool = False
    """Workers fail their health checks and take no requests."""
    health_lies: str = ""
    """`idle`: /health tells of one idle worker, whatever there is; `nothing`: of no worker and no request."""
    refuses: bool = False
    """401 to everybody who invokes it: its key was revoked."""
    gpu: str = "NVIDIA L4"


@dataclass
class Worker:
    """One worker. `status` is RunPod's word."""

    id: str
    status: str
    started_at: float
    idle_since: float = 0.0


class Endpoint:
    """One endpoint. `close` ends its server.

    Args:
        endpoint_id: its id.
        key: the key that is restricted to it.
        options: how it behaves.
        clock: the simulator's.
    """

    def __init__(self, endpoint_id: str, key: str, options: Options, clock: Clock) -> None:
        self.id = endpoint_id
        self.key = key
        self.options = options
        self.least, self.most = 0, 0
        self.queued = self.in_progress = self.completed = 0
        self.created_at = clock.now()
        self.workers: list[Worker] = []
        self._clock = clock
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._container: InlineContainer | None = None

    # --- what is told of it
    def document(self, invoke_url: str) -> dict[str, Any]:
        """As `GET /v2/serverless/{id}` shows it."""
        base = f"{invoke_url}/v2/{self.id}"
        names = {"run": "run", "runSync": "runsync", "status": "status/{job_id}", "stream": "stream/{job_id}"}
        names |= {"cancel": "cancel/{job_id}", "retry": "retry/{job_id}", "purgeQueue": "purge-queue"}
        queue = {name: f"{base}/{path}" for name, path in {**names, "health": "health"}.items()}
        balanced = {"base": f"{base}/openai", "health": f"{base}/openai/ping"}
        return {
            "id": self.id,
            "name": f"vllm {self.options.model}",
            "type": self.options.kind,
            "requestUrls": balanced if self.options.kind == "LOAD_BALANCER" else queue,
            "image": "runpod/worker-v1-vllm:v2.9.0",
            "env": {"MODEL_NAME": self.options.model},
            "gpu": {"pools": ["ADA_24"], "count": 1, "allowedCudaVersions": [], "minCudaVersion": None},
            "workers": {
                "min": self.least,
                "max": self.most,
                "idleTimeout": max(1, int(self.options.idle_seconds)),
            },
            "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
            "dataCenterIds": [],
            "networkVolumes": [],
            "timeout": 300000,
            "flashboot": "OFF",
            "createdAt": rfc3339(self.created_at),
        }

    def listed(self) -> dict[str, Any]:
        """As `GET /v2/serverless/{id}/workers` shows them."""
        shown = [
            {
                "id": worker.id,
                "status": worker.status,
                "isStale": False,
                "version": 1,
                "gpuCount": 1,
                "gpuTypeId": None if worker.status == "THROTTLED" else self.options.gpu,
                "startedAt": rfc3339(worker.started_at),
            }
            for worker in self.workers
        ]
        return {
            "workers": shown,
            "summary": {**self._counts(), "total": len(shown)},
            "endpointVersion": 1,
        }

    def health(self) -> dict[str, Any]:
        """As `/health` tells, truly or not."""
        counts, lies = self._counts(), self.options.health_lies
        jobs = {"completed": self.completed, "failed": 0, "inProgress": self.in_progress, "retried": 0}
        jobs["inQueue"] = self.queued
        if lies:
            counts = dict.fromkeys(counts, 0) | ({"idle": 1} if lies == "idle" else {})
        if lies == "nothing":
            jobs |= {"inProgress": 0, "inQueue": 0}
        return {"jobs": jobs, "workers": {**counts, "ready": counts["idle"]}}

    def _counts(self) -> dict[str, int]:
        states = ("running", "idle", "initializing", "throttled", "unhealthy")
        return {state: sum(w.status == state.upper() for w in self.workers) for state in states}

    # --- what is done to it
    async def limit(self, least: int, most: int) -> None:
        """New worker limits; what is over them ends."""
        self.least, self.most = least, most
        if most < len(self.workers):
            self._spawn(self._drained())
        await self._scale()

    async def change(self, changes: Mapping[str, Any]) -> None:
        """Another behaviour. Raises ValueError for a name that is none."""
        known = {field.name for field in fields(Options)}
        if stray := set(changes) - known:
            raise ValueError(
                f"no such option: {', '.join(sorted(stray))}; there are {', '.join(sorted(known))}"
            )
        self.options = replace(self.options, **changes)
        for worker in self.workers:
            if self.options.unhealthy:
                worker.status = "UNHEALTHY"
            elif worker.status in ("UNHEALTHY", "THROTTLED") and not self.options.throttled:
                worker.status = "IDLE"
        await self._tell()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[int]:
        """A worker's port, as soon as one is free."""
        worker = await self._turn()
        try:
            yield await self._port()
        finally:
            self.in_progress -= 1
            self.completed += 1
            if worker.status == "RUNNING":
                worker.status, worker.idle_since = "IDLE", self._clock.now()
            self._spawn(self._ended_when_idle(worker))
            await self._tell()

    async def close(self) -> None:
        """Idempotent."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._container:
            await self._container.stop()

    # --- its workers
    async def _turn(self) -> Worker:
        """A client that leaves does not take its request out of the queue: the job was accepted."""
        self.queued += 1
        job = asyncio.create_task(self._taken())
        self._tasks.add(job)
        job.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            job.add_done_callback(self._done_alone)
            raise

    def _done_alone(self, job: "asyncio.Task[Worker]") -> None:
        """Nobody waits for the answer any more."""
        if not job.cancelled():
            self.in_progress, self.completed = self.in_progress - 1, self.completed + 1
            worker = job.result()
            worker.status, worker.idle_since = "IDLE", self._clock.now()
            self._spawn(self._ended_when_idle(worker))

    async def _taken(self) -> Worker:
        await self._scale()
        async with self._changed:
            await self._changed.wait_for(lambda: any(w.status == "IDLE" for w in self.workers))
            worker = next(w for w in self.workers if w.status == "IDLE")
            worker.status = "RUNNING"
        self.queued, self.in_progress = self.queued - 1, self.in_progress + 1
        return worker

    async def _scale(self) -> None:
        wanted = min(self.most, max(self.least, len(self._busy()) + self.queued))
        for _ in range(wanted - len(self.workers)):
            status = "THROTTLED" if self.options.throttled else "INITIALIZING"
            worker = Worker(secrets.token_hex(7), status, self._clock.now())
            self.workers.append(worker)
            self._spawn(self._started(worker))

    def _busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.status == "RUNNING"]

    async def _started(self, worker: Worker) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self.options.throttled)
        worker.status = "INITIALIZING"
        await self._clock.sleep_until(self._clock.now() + self.options.cold_start_seconds)
        worker.status = "UNHEALTHY" if self.options.unhealthy else "IDLE"
        worker.idle_since = self._clock.now()
        self._spawn(self._ended_when_idle(worker))
        await self._tell()

    async def _ended_when_idle(self, worker: Worker) -> None:
        since = worker.idle_since
        await self._clock.sleep_until(since + self.options.idle_seconds)
        idle = worker.status == "IDLE" and worker.idle_since == since
        if idle and worker in self.workers and len(self.workers) > self.least:
            self.workers.remove(worker)

    async def _drained(self) -> None:
        await self._clock.sleep_until(self._clock.now() + self.options.drain_seconds)
        del self.workers[self.most :]

    async def _port(self) -> int:
        if self._container is None:
            command = VllmCommand(self.options.model, self.options.model)
            self._container = InlineContainer(command, Behavior(first_token_seconds=0, tokens_per_second=0))
            await self._container.ready()
        return self._container.port

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
        if self.queued:
            await self._scale()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
