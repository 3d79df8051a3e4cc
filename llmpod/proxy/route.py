"""Not a connection and not a file: which model server a request is for. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote

from llmpod.config import ProxySettings
from llmpod.config.routes import Route
from llmpod.lifecycle.share import Target
from llmpod.model import ANY_NAME, Phase, Refusal
from llmpod.proxy.origin import Origin
from llmpod.secret import Secret

# RunPod's HTTP proxy gives up after 100 s without a byte, so a long answer must be asked for as a stream
_CUTS_SILENCE: Final = (".proxy.runpod.net", ".api.runpod.ai")
_OVER: Final = frozenset({Phase.STOPPED, Phase.FAILED})
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


ALONE: Final = "default"  # the name of a model that has none beside it


_OWN: Final = re.compile(r"/[A-Za-z0-9][A-Za-z0-9_.-]*(?=/v1/)")


def is_model_path(path: str) -> bool:
    """Whether a path is a model server's, and not one of our own pages; its own address may stand before it."""
    return path.startswith("/v1/") or path in _AT_ROOT or _OWN.match(path) is not None


def read_plainly(path: str) -> str:
    """What a server takes a path for, however it is spelled."""
    return re.sub("/+", "/", unquote(path)).rstrip("/")


def without_name(path: str) -> str:
    """The same, of what a model's server gets of it: the model's own address is taken off."""
    return read_plainly(path[len(own_address(path)) :])


def own_address(path: str) -> str:
    """What stands before ``/v1``; empty for a path that is everybody's."""
    found = None if path.startswith("/v1/") else _OWN.match(path)
    return found[0] if found else ""


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
        accepts: the names for which requests may start or reach it; None: any, for its server knows best.
        phase: for messages and ops; None for a fixed endpoint.
        bills_requests: any request may start a worker of it; nothing is asked of it that nobody wants answered.
        barred: why no request may start it, by the manager's last pass; None: one may, as far as that knew.
        outdated: its machine gets nothing more, for another one replaces it as soon as nothing is in flight.
    """

    identity: str
    model_key: str = ALONE
    origin: Origin | None = None
    api_key: Secret | None = None
    passes_credentials: bool = False
    cuts_silence: bool = False
    names: tuple[str, ...] = ()
    accepts: frozenset[str] | None = None
    phase: Phase | None = None
    deadline: float | None = None
    usd_per_hour: float | None = None
    max_model_len: int | None = None
    created_at: float | None = None
    ready_at: float | None = None
    error: str = ""
    gpu: str = ""
    retrying: bool = False
    typical_start: tuple[float, int] | None = None
    refusal: Refusal | None = None
    bills_requests: bool = False
    outdated: bool = False
    barred: Refusal | None = None
    route: Route | None = None

    @property
    def own_id(self) -> str:
        """What the model is, whatever it is called here."""
        if self.route is not None:
            return self.route.model
        return self.names[-1] if self.names else self.identity

    def takes(self, name: str) -> bool:
        """Whether a request for that name may be for it."""
        return self.accepts is None or name in self.accepts

    @property
    def plain(self) -> bool:
        """Whether requests go to it as they are, wherever it is the only one."""
        return self.route is None


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
    """The models of the state file; one that was never started is described by the configuration alone."""
    if settings.routes:
        return tuple(_on_route(route, targets.get(route.model_key), settings) for route in settings.routes)
    if settings.models:  # a model alone; what else the state names was removed and is on its way out
        targets = {name: target for name, target in targets.items() if name == ALONE}
    if not targets and settings.models:
        return (_closed(_untold(settings), settings),)
    return tuple(
        _closed(_alone(target, settings), settings)
        if target.model or not settings.models
        else _never_started(target, settings)
        for target in targets.values()
    )


def _alone(target: Target, settings: ProxySettings) -> Destination:
    """The one model. Where its machine is no more, the configuration says what the next one will serve."""
    found = _from_target(target)
    if target.phase not in _OVER or not settings.models:
        return found
    identity = settings.identity or found.identity
    return replace(found, identity=identity, names=settings.models, max_model_len=settings.max_model_len)


def _closed(found: Destination, settings: ProxySettings) -> Destination:
    """A model alone. Where requests start it, only for its names; one that runs anyway says itself what it knows."""
    if settings.open_names or not settings.models or found.model_key not in settings.demand:
        return found
    return replace(found, accepts=frozenset((*found.names, *settings.models)))


def _on_route(route: Route, target: Target | None, settings: ProxySettings) -> Destination:
    """One model with its ways in, whether or not it was ever started."""
    never = Destination(
        identity=route.identity,
        model_key=route.model_key,
        phase=Phase.STOPPED,
        max_model_len=route.max_model_len,
    )
    if target is None:
        found = never
    elif target.model and target.phase in _OVER:  # the next machine is the configuration's
        found = replace(_from_target(target), identity=route.identity, max_model_len=route.max_model_len)
    elif target.model:
        found = _from_target(target)
    else:
        found = replace(
            _never_started(target, settings),
            names=(),
            identity=never.identity,
            max_model_len=never.max_model_len,
        )
    names = tuple(dict.fromkeys((*found.names, *route.names)))
    alone = len(settings.routes) == 1 and route.model_key not in settings.demand
    accepts = None if route.open or alone else frozenset(names)
    return replace(found, names=names, accepts=accepts, route=route)


def _untold(settings: ProxySettings) -> Destination:
    names, length = settings.models, settings.max_model_len
    identity = settings.identity or names[-1]
    return Destination(identity=identity, names=names, phase=Phase.STOPPED, max_model_len=length)


def _never_started(target: Target, settings: ProxySettings) -> Destination:
    """What the manager says of a model that it has not described yet."""
    told = replace(
        _untold(settings),
        model_key=target.model_key,
        phase=target.phase,
        error=target.error,
        retrying=target.retrying,
        refusal=target.refusal,
        barred=target.barred,
    )
    return _closed(told, settings)


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
    up = target.base_url is not None and target.phase in _OPEN and not target.outdated
    origin = Origin.parse(target.base_url) if up and target.base_url else None
    return Destination(
        identity=target.identity,
        model_key=target.model_key,
        origin=origin,
        api_key=target.api_key,
        cuts_silence=origin is not None and _cuts_silence(origin),
        names=tuple(dict.fromkeys(name for name in (target.served_name, target.model) if name != ANY_NAME)),
        phase=target.phase,
        deadline=target.deadline,
        usd_per_hour=target.usd_per_hour,
        max_model_len=target.max_model_len,
        created_at=target.created_at,
        ready_at=target.ready_at,
        error=target.error,
        gpu=target.gpu,
        retrying=target.retrying,
        typical_start=target.typical_start,
        refusal=target.refusal,
        bills_requests=target.bills_requests,
        outdated=target.outdated,
        barred=target.barred,
    )


def _cuts_silence(origin: Origin) -> bool:
    return origin.host.endswith(_CUTS_SILENCE)
