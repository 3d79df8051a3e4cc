"""Not a database, not a schema: the nouns, as frozen values of the standard library.

Times are seconds since the epoch (UTC, float) unless a name ends in ``_seconds``; money is US dollars.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

ANY_NAME = "*"
"""The served name of a model whose server is asked what it serves."""


class Phase(StrEnum):
    """Where one model is on its way from nothing to ready and back; the order of a normal life."""

    STOPPED = "stopped"  # nothing exists, nothing is wanted
    INTENT = "intent"  # a name is on disk, the create call has not been answered
    UNKNOWN = "unknown"  # the create call ended without a clear answer; we look for the name
    CREATED = "created"  # the provider has it; the machine is being set up or the image pulled
    BOOTING = "booting"  # the container runs; the server does not answer yet
    LOADING = "loading"  # the server answers; the model is not listed or has not completed a token
    READY = "ready"  # a real completion came through the same path
    UNHEALTHY = "unhealthy"  # was ready, fails its probe now
    TERMINATING = "terminating"  # a delete was ordered; not yet confirmed by a later GET or LIST
    FAILED = "failed"  # gave up; waits for a back-off or for a person


class Observed(StrEnum):
    """What a provider says about an instance, reduced to what we decide on."""

    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    BROKEN = "broken"


class EventKind(StrEnum):
    """What people may want to be told of."""

    CREATED = "created"
    READY = "ready"
    EXPIRING = "expiring"
    TERMINATED = "terminated"
    FAILED = "failed"
    BUDGET = "budget"
    LEAK = "leak"


class Direction(StrEnum):
    """What is wanted of a model."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to buy the machine: a GPU type at a price.

    Args:
        gpu: the provider's id of the GPU type.
        count: GPUs per machine.
        usd_per_hour: list price of the whole machine, or None when unknown.
        stock: the provider's word (``HIGH``…``NONE``) or ``unknown``; a hint, never a promise.
        vram_gb: memory of all its GPUs in GB, or None.
        note: why it is or is not a candidate, for the plan.
        key: names what was asked for (type, count, tier, places), to remember that it could not be had.
    """

    gpu: str
    count: int = 1
    usd_per_hour: float | None = None
    stock: str = "unknown"
    vram_gb: int | None = None
    note: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Spec:
    """What to create: everything that is the same for each attempt.

    Args:
        offers: the candidates in the order in which they are tried; ``rejected`` those that are not, with why.
        weights_bytes: size of the model's weights, or None when unknown.
        heartbeat_seconds: the machine ends itself when it served no authenticated request for so long.
        switch_interval_seconds: how often the machine looks at its own deadline and heartbeat.
        digest: names the configuration that this was drawn from.
        has_switch: whether the machine can end itself at a deadline.
    """

    model: str
    served_name: str
    image: str
    args: tuple[str, ...]
    port: int
    disk_gb: int
    offers: tuple[Offer, ...]
    cloud: str = "SECURE"
    data_centers: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    template_id: str | None = None
    min_cuda: str | None = None
    mount_path: str | None = None
    volume_gb: int | None = None
    network_volume_id: str | None = None
    transport: str = "http"
    rejected: tuple[Offer, ...] = ()
    weights_bytes: int | None = None
    heartbeat_seconds: int | None = None
    switch_interval_seconds: int = 30
    digest: str = ""
    has_switch: bool = True


@dataclass(frozen=True, slots=True)
class Instance:
    """One machine as the provider lists it. ``base_url`` is where its model server will answer (no ``/v1``).

    ``switch_at`` is the deadline armed in it and ``digest`` the configuration it was made from, where it tells them.
    ``ping_path`` answers 200 once it is ready, or 404 where there is no such path.
    ``key_optional``: strangers cannot reach it, or it is not ours, so an answer without the key is no leak.
    ``listens`` looks whether its own server is who answers at its address; else another one might.
    """

    id: str
    name: str
    observed: Observed
    usd_per_hour: float | None = None
    base_url: str | None = None
    container_up: bool = False
    uptime_seconds: float | None = None
    created_at: float | None = None
    gpu: str | None = None
    gpu_count: int | None = None
    detail: str = ""
    switch_at: float | None = None
    digest: str = ""
    key_optional: bool = False
    ping_path: str = ""
    listens: Callable[[], bool] = field(default=lambda: False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Listing:
    """All machines that a provider shows, and what its own clock said then (None: it did not say)."""

    instances: tuple[Instance, ...] = ()
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth telling a person, in words."""

    kind: EventKind
    model: str
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class Want:
    """A durable order: which direction, until when, who said so and why.

    ``heard`` is the time of the last wish of the proxy that was known when it was given; see ``lifecycle/wish.py``.
    """

    direction: Direction
    at: float
    by: str
    reason: str = ""
    until: float | None = None
    heard: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What we must remember about one model because no provider can tell it.

    ``name`` is unique for each create call; it is on disk before the call. ``switch_at`` is the deadline that is
    armed inside the machine itself and cannot be moved; ``crashes`` counts how often its uptime fell back;
    ``listed``: a listing has shown it; ``ending_at`` is when its first delete was ordered. ``run_at`` is the time of
    the order that this run obeys; another order starts a new run with a new deadline and fresh attempts.
    ``key_file`` holds the key of a server that is not ours; empty: it has none; None: the key is the name's own.
    ``suspects`` are names of earlier creates that ended unclear and may still appear. ``outdated``: it was made from
    another configuration and is replaced as soon as nobody is answered by it.
    """

    phase: Phase = Phase.STOPPED
    name: str = ""
    instance_id: str | None = None
    base_url: str | None = None
    model: str = ""
    served_name: str = ""
    spec_digest: str = ""
    gpu: str = ""
    usd_per_hour: float | None = None
    intent_at: float | None = None
    created_at: float | None = None
    ready_at: float | None = None
    ending_at: float | None = None
    ended_at: float | None = None
    deadline: float | None = None
    switch_at: float | None = None
    uptime_seconds: float | None = None
    crashes: int = 0
    attempts: int = 0
    next_try_at: float | None = None
    hold_until: float | None = None
    probe_failures: int = 0
    missing_since: float | None = None
    delete_accepted: bool = False
    listed: bool = False
    run_at: float | None = None
    down_reason: str = ""
    error: str = ""
    suspects: tuple[tuple[str, float], ...] = ()
    key_file: str | None = None
    outdated: bool = False
    config: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the proxy saw of one model: when the last byte moved and what is in flight.

    ``wake_wanted`` and ``rest_wanted`` say when it last wished that the model be started, or stopped; ``rest_reason``
    why the latter (empty: nobody used it); ``let_go`` names a machine that has nothing in flight and gets no more;
    ``at`` is when it said all this.
    """

    last_byte: float | None = None
    in_flight: int = 0
    wake_wanted: float | None = None
    requests: int = 0
    rest_wanted: float | None = None
    let_go: str = ""
    at: float | None = None
    rest_reason: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the proxy's wish of that time to start a model was refused: a status of HTTP, and words.

    ``retry_at`` is when another wish may be granted, as far as that is known.
    """

    at: float
    status: int
    text: str
    hint: str = ""
    retry_at: float | None = None


@dataclass(frozen=True, slots=True)
class Today:
    """What was spent since midnight (UTC), and what may be; USD."""

    spent_usd: float
    limit_usd: float


@dataclass(frozen=True, slots=True)
class Health:
    """The answer to "is this model server ready?": how far it got, and why not further.

    ``open_to_all``: it answers without the key. ``wants_other_key``: it refuses the key that it was given.
    """

    phase: Phase
    detail: str = ""
    open_to_all: bool = False
    wants_other_key: bool = False

    @property
    def ready(self) -> bool:
        return self.phase is Phase.READY


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for another one: pid, its start time in clock ticks, and the boot."""

    pid: int
    started: int
    boot: str
