"""Not a connection and not a file: which model server a request is for. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from llmpod.config import ProxySettings
from llmpod.lifecycle.share import Target
from llmpod.model import Phase
from llmpod.proxy.origin import Origin
from llmpod.secret import Secret

# RunPod's HTTP proxy gives up after 100 s without a byte, so a long answer must be asked for as a stream
_CUTS_SILENCE: Final = (".proxy.runpod.net", ".api.runpod.ai")
_OPEN: Final = frozenset({Phase.READY, Phase.UNHEALTHY})  # an unhealthy server may still answer; it decides


# what vLLM serves beside /v1; not all it has: its other paths change the server or need no key (T: CVE list, 3.1)
_AT_ROOT: Final = frozenset(
    {
        *(
            "/tokenize",
            "/detokenize",
            "/pooling",
            "/classify",
            "/score",
            "/rerank",
            "/v2/rerank",
            "/v2/embed",
        ),
    }
)


def is_model_path(path: str) -> bool:
    """Whether a path is the model server's, and not one of our own pages."""
    return path.startswith("/v1/") or path in _AT_ROOT


@dataclass(frozen=True, slots=True)
class Destination:
    """One model as the proxy sees it, whether or not anything runs for it now.

    Args:
        identity: names the model in cache keys; never the machine, so that entries outlive pods.
        model_key: under which usage is counted.
        origin: where it answers; None while nothing runs.
        api_key: sent instead of whatever the client sent; None: see ``passes_credentials``.
        passes_credentials: the client's own credential goes upstream, and partitions the cache.
        cuts_silence: the path gives up on long silences.
        names: what clients may call it, the served name first.
        phase: for messages and ops; None for a fixed endpoint.
    """

    identity: str
    model_key: str = "default"
    origin: Origin | None = None
    api_key: Secret | None = None
    passes_credentials: bool = False
    cuts_silence: bool = False
    names: tuple[str, ...] = ()
    phase: Phase | None = None
    deadline: float | None = None
    usd_per_hour: float | None = None
    max_model_len: int | None = None
    created_at: float | None = None
    ready_at: float | None = None
    error: str = ""


def fixed(settings: ProxySettings) -> Destination:
    """The endpoint that a person configured."""
    assert settings.endpoint is not None
    origin = Origin.parse(settings.endpoint)
    return Destination(
        identity=settings.endpoint,
        origin=origin,
        api_key=settings.endpoint_key,
        passes_credentials=settings.endpoint_key is None,
        cuts_silence=_cuts_silence(origin),
        names=settings.models,
    )


def followed(targets: Mapping[str, Target], settings: ProxySettings) -> tuple[Destination, ...]:
    """The models of the state file; with no record at all, the one the configuration names."""
    if not targets and settings.models:
        names, length = settings.models, settings.max_model_len
        identity = settings.identity or names[-1]
        return (Destination(identity=identity, names=names, phase=Phase.STOPPED, max_model_len=length),)
    return tuple(_from_target(target) for target in targets.values())


def choose(destinations: Iterable[Destination], model: str | None) -> Destination | None:
    """The destination that serves ``model``, else the first one; None when there is none."""
    first: Destination | None = None
    for destination in destinations:
        if model is not None and model in destination.names:
            return destination
        first = first or destination
    return first


def counts_upstream(destination: Destination, settings: ProxySettings) -> bool:
    """Whether token counts are asked for in a stream for a client that did not ask, so that one call serves all.

    On its own only where the model server is one that we run: a stranger gets the request as it was sent.
    """
    chosen = settings.upstream_usage
    return chosen == "always" or (chosen == "auto" and destination.phase is not None)


def streams_upstream(destination: Destination, settings: ProxySettings) -> bool:
    """Whether a client's request for one JSON document is sent as a request for a stream."""
    if settings.upstream_stream == "auto":
        return destination.cuts_silence
    return settings.upstream_stream == "always"


def _from_target(target: Target) -> Destination:
    up = target.base_url is not None and target.phase in _OPEN
    origin = Origin.parse(target.base_url) if up and target.base_url else None
    return Destination(
        identity=target.identity,
        model_key=target.model_key,
        origin=origin,
        api_key=target.api_key,
        cuts_silence=origin is not None and _cuts_silence(origin),
        names=tuple(dict.fromkeys((target.served_name, target.model))),
        phase=target.phase,
        deadline=target.deadline,
        usd_per_hour=target.usd_per_hour,
        max_model_len=target.max_model_len,
        created_at=target.created_at,
        ready_at=target.ready_at,
        error=target.error,
    )


def _cuts_silence(origin: Origin) -> bool:
    return origin.host.endswith(_CUTS_SILENCE)
