"""Not a connection: what RunPod says of one serverless endpoint, read into values.

Source of the facts: RunPod's OpenAPI document (``Endpoint``, ``ListEndpointWorkersResponse``) and its documentation
of ``/health``. Counts that are missing or are none count as zero: the older form of ``/health`` has only two.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from llmpod.errors import ProviderUnavailable

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint.

    Args:
        id: its id.
        base_url: where its OpenAI API is, without ``/v1``.
        health_url: where it tells how many workers and requests there are; None: it has no queue and tells nothing.
        least: workers that are always there.
        most: workers that there are at most; 0: it is parked.
    """

    id: str
    base_url: str
    health_url: str | None
    least: int
    most: int

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Endpoint":
        """From the API's answer.

        Raises:
            ProviderUnavailable: what it must have is not in it, or a key would travel in clear.
        """
        urls, limits = _mapping(document.get("requestUrls")), _mapping(document.get("workers"))
        health = str(urls.get("health") or "")
        queued = document.get("type", "QUEUE") != "LOAD_BALANCER"
        base = health.removesuffix("/health") + "/openai" if queued else str(urls.get("base") or "")
        if not health or "max" not in limits or not _is_private(base):
            raise ProviderUnavailable("RunPod's answer about the endpoint has no usable limits or addresses.")
        return cls(
            str(document.get("id")),
            base.rstrip("/"),
            health if queued else None,
            _count(limits, "min"),
            _count(limits, "max"),
        )


@dataclass(frozen=True, slots=True)
class Load:
    """How many workers an endpoint has in which state, and how many requests wait for one or are worked on."""

    idle: int = 0
    running: int = 0
    initializing: int = 0
    throttled: int = 0
    unhealthy: int = 0
    queued: int = 0
    in_progress: int = 0

    @classmethod
    def of_health(cls, document: Mapping[str, Any]) -> "Load":
        """From ``/health`` of the endpoint itself."""
        workers, jobs = _mapping(document.get("workers")), _mapping(document.get("jobs"))
        names = ("running", "initializing", "throttled", "unhealthy")
        return cls(
            idle=max(_count(workers, "idle"), _count(workers, "ready")),
            queued=_count(jobs, "inQueue"),
            in_progress=_count(jobs, "inProgress"),
            **{name: _count(workers, name) for name in names},
        )

    @classmethod
    def of_workers(cls, document: Mapping[str, Any]) -> "Load":
        """From the API's list of workers, which knows no queue."""
        summary = _mapping(document.get("summary"))
        names = ("idle", "running", "initializing", "throttled", "unhealthy")
        return cls(**{name: _count(summary, name) for name in names})

    @property
    def awake(self) -> bool:
        """Whether a worker can take a request now or soon."""
        return self.idle + self.running > 0

    @property
    def sleeps(self) -> bool:
        """Whether there is nothing at all: no worker, and no request that would bring one."""
        return not any(asdict(self).values())

    @property
    def broken(self) -> bool:
        """Whether there are workers, and all of them are broken."""
        return self.unhealthy > 0 and self.idle + self.running + self.initializing + self.throttled == 0

    @property
    def contradicts(self) -> bool:
        """Whether requests wait although a worker is said to have nothing to do."""
        return self.idle > 0 and self.queued > 0 and self.running + self.in_progress == 0

    def __str__(self) -> str:
        states = ("idle", "running", "initializing", "throttled", "unhealthy")
        told = [f"{count} {state}" for state in states if (count := getattr(self, state))]
        waiting = (
            f"; {self.queued} request{'s' if self.queued > 1 else ''} in the queue" if self.queued else ""
        )
        return f"workers: {', '.join(told) or 'none'}{waiting}"


def billed_gpus(document: Mapping[str, Any]) -> list[tuple[str, int]]:
    """GPU type and count of each worker that is billed, in the API's list: all that have a machine."""
    workers = document.get("workers")
    found = [_mapping(worker) for worker in (workers if isinstance(workers, list) else [])]
    placed = [worker for worker in found if worker.get("gpuTypeId") and worker.get("status") != "THROTTLED"]
    return [(str(worker["gpuTypeId"]), max(1, _count(worker, "gpuCount"))) for worker in placed]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(counts: Mapping[str, Any], name: str) -> int:
    value = counts.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _is_private(url: str) -> bool:
    """Whether a key may be sent there: encrypted, or within this machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    )
