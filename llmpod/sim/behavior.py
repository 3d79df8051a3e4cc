"""Not state: what the simulator can be told to do otherwise, in one frozen value with documented defaults.

The defaults are a pleasant demo; tests set the times to zero and the switches they need. A pod keeps the behaviour
that was in force when it was created, so a switch concerns the pods and answers that follow.
"""

import difflib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any


def _one_of(default: str, *others: str) -> Any:
    return field(default=default, metadata={"choices": (default, *others)})


@dataclass(frozen=True)
class Behavior:
    """Times are seconds. Sources: facts.md, the section in brackets; "made up" where nothing is known."""

    # --- the life of a pod
    state_mode: str = _one_of("real", "doc")
    """real: RUNNING from the create answer on, runtime later (measured, 1.8). doc: first PROVISIONING, STARTING."""
    container_seconds: float = 1.0
    """From create to the container's start: image pull, then runtime and ports appear. Measured: 50-84."""
    load_seconds: float = 2.0
    """From the container's start to the model server's open port."""
    never_ready: bool = False
    """The container runs and the model server never opens its port."""
    stuck: bool = False
    """The container never starts: no runtime, no ports, for ever."""
    error_state: bool = False
    """The pod becomes ERROR, `fate_seconds` after its container started."""
    self_exits: bool = False
    """RunPod stops the pod by itself after `fate_seconds`, as for CUDA trouble; then it costs nothing."""
    crash_loop: bool = False
    """The container restarts every `crash_seconds`: RUNNING, but its uptime falls, and the bill goes on."""
    fate_seconds: float = 0.0
    """From the container's start to ERROR or EXITED."""
    crash_seconds: float = 2.0
    """The period of the crash loop."""
    zero_gpus: bool = False
    """A stopped pod that is started comes back without GPUs."""
    resume_fails: bool = False
    """Start of a stopped pod: 400, no free GPU on its host."""
    # --- create
    capacity: Mapping[str, int] = field(default_factory=dict)
    """GPUs by "gpu/cloud/data center", `*` allowed; the first pattern that fits counts, else there is plenty."""
    no_capacity: tuple[str, ...] = ()
    """GPU types of which there is none anywhere."""
    catalog_lies: bool = False
    """The catalog shows plenty of everything, whatever create says."""
    min_disk_gb: int = 20
    """Smaller container disks find no host (live: 10 GB failed)."""
    max_disk_gb: int = 2000
    """Larger ones fail with "enough disk space"."""
    gpu_count_quirk: bool = True
    """gpu.count left out: a false "no instances" (live, 1.3)."""
    balance_usd: float | None = None
    """Money of the account; a pod needs an hour's worth, else 402. None: never an end."""
    other_usd_per_hour: float = 0.0
    """What the account spends beside its pods: serverless, volumes. GraphQL's rate includes it (2.2)."""
    spend_limit_usd: float = 80.0
    """USD per hour that the account may spend (doc pods/pricing); told by GraphQL."""
    billing_lag_seconds: float = 0.0
    """How far the bill is behind (made up; that it lags is known)."""
    graphql_retired: bool = False
    """GraphQL answers 410, as announced for early 2027 (2)."""
    forbidden_gpus: tuple[str, ...] = ()
    """Pools that the account may not use: 403."""
    missing_images: tuple[str, ...] = ()
    """Image names (patterns) that the registry does not have."""
    missing_image: str = _one_of("422", "exit")
    """Refused, or a pod that stops by itself with IMAGE_PULL_ERROR in its system log."""
    listing_lag_seconds: float = 0.0
    """After create: absent from LIST, 404 on GET."""
    # --- delete
    delete_lag_seconds: float = 0.0
    """After delete: LIST still shows the pod."""
    delete_lag_get: bool = False
    """Whether GET, too, finds the pod for so long; else it is 404 at once."""
    # --- the API's front
    key_scope: str = _one_of("full", "read", "none")
    """What the key may do: everything, GET only, or nothing (403)."""
    api_latency_seconds: float = 0.0
    """Before every answer of the API, in real time."""
    blocked_agents: tuple[str, ...] = ("python-urllib", "python-requests")
    """Beginnings of User-Agents that Cloudflare answers with `error code: 1010` (live: urllib's default, 1.1)."""
    rate_limits: tuple[int, ...] = (180, 7200, 86400)
    """Requests in a minute, an hour, a day (live 2026-08-19), as the headers tell."""
    enforce_rate_limits: bool = False
    """Whether the request over the limit gets 429; the headers count either way."""
    page_size: int = 1000
    """The most that one page holds, whatever `limit` says."""
    short_pages: bool = False
    """Every page holds one pod less than it might."""
    pagination: bool = True
    """False: a server of before September 2026, which sends all pods and no `pagination`."""
    old_payload: bool = False
    """True: `cmd`, `entrypoint` and the GPU's vcpuCount are unknown (recorded 2026-08-20)."""
    # --- reaching the pod
    first_byte_seconds: float = 100.0
    """The HTTP proxy answers 524 when the pod sent no byte for so long (doc)."""
    # --- the container
    run_switch: bool = False
    """Inline pods whose entrypoint is a shell script, as the dead-man's switch is, run it for real, as pods of
    `--pods process` always do. False: of the script only what it starts in the end is read, which costs no process."""
    # --- the model server
    first_token_seconds: float = 0.15
    """Time to the first token."""
    tokens_per_second: float = 80.0
    """0: as fast as it goes."""
    pod_ignores_key: bool = False
    """The server answers everybody."""
    wrong_model: bool = False
    """The server serves another model name than it was told."""
    die_after: int = 0
    """The server dies after so many model requests through the proxy, and the container restarts; 0: never."""


class BadBehavior(ValueError):
    """A name that is none, or a value of the wrong type; the message names the nearest."""


_TYPES = typing.get_type_hints(Behavior)


def merged(behavior: Behavior, changes: Mapping[str, Any]) -> Behavior:
    """The behaviour with some values replaced. Raises BadBehavior."""
    return replace(behavior, **{name: _checked(name, value) for name, value in changes.items()})


def _checked(name: str, value: Any) -> Any:
    if name not in _TYPES:
        near = difflib.get_close_matches(name, _TYPES, n=1, cutoff=0)
        raise BadBehavior(f"unknown behavior {name!r}; the nearest is {near[0]!r}")
    choices = next(item for item in fields(Behavior) if item.name == name).metadata.get("choices")
    if choices and value not in choices:
        raise BadBehavior(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
    return _typed(name, value)


def _typed(name: str, value: Any) -> Any:
    wanted = _TYPES[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is bool and isinstance(value, bool):
        return value
    if wanted is int and number and value == int(value) and value >= 0:
        return int(value)
    if wanted in (float, float | None) and number and value >= 0:
        return float(value)
    if wanted == float | None and value is None:
        return None
    if wanted is str and isinstance(value, str):
        return value
    return _collected(name, value)


def _collected(name: str, value: Any) -> Any:
    wanted = _TYPES[name]
    if (
        wanted == tuple[str, ...]
        and isinstance(value, list | tuple)
        and all(isinstance(v, str) for v in value)
    ):
        return tuple(value)
    if wanted == tuple[int, ...] and isinstance(value, list | tuple) and len(value) == 3:
        return tuple(int(v) for v in value)
    if (
        wanted == Mapping[str, int]
        and isinstance(value, dict)
        and all(isinstance(v, int) for v in value.values())
    ):
        return dict(value)
    raise BadBehavior(f"{name}: {value!r} is not {wanted}")
