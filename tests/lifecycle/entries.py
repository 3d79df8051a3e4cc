"""Machines, ledger entries and times that the tests about money share."""

from datetime import UTC, datetime

from llmpod.lifecycle.book import Entry, Tenant
from llmpod.model import Instance, Observed

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0
DAY = 24 * HOUR


def machine(
    pod: str = "p1",
    usd: float | None = 0.5,
    *,
    created: float | None = NOON,
    observed: Observed = Observed.RUNNING,
    name: str = "",
) -> Instance:
    return Instance(
        pod, name or f"llmpod-x-{pod}", observed, usd, created_at=created, gpu="NVIDIA L4", gpu_count=1
    )


def entry(
    pod: str = "p1",
    usd: float | None = 0.5,
    *,
    opened: float = NOON,
    closed: float | None = None,
    until: float | None = None,
    model: str = "org/m",
) -> Entry:
    return Entry(pod, pod, model, "NVIDIA L4", opened, ((opened, usd),), until=until, closed_at=closed)


def mine(until: float | None = None, model: str = "org/m") -> Tenant:
    return Tenant(model, until)
