"""Not a process: what the proxy inherits from the manager, and its settings, as environment variables."""

from collections.abc import Mapping

from llmpod.config import DEFAULT_MODEL, KEYS_FILE, Auth, Config, PodConfig, caching, digest_of
from llmpod.config.demand import Demand, demand_text, loading_text
from llmpod.config.names import has_more_names
from llmpod.config.rates import rates_text
from llmpod.config.routes import Route, routes_text
from llmpod.config.served import identity_of
from llmpod.lifecycle.proxyproc import INHERITED
from llmpod.lifecycle.store import Store
from llmpod.model import ANY_NAME


def proxy_environ(config: Config, environ: Mapping[str, str], store: Store) -> dict[str, str]:
    """Both; :class:`ProxyProcess` hands the settings over as a file, so that they can change."""
    c = config.common
    values = {
        "PORT": str(c.proxy_port),
        "CACHE_DIR": str(c.cache_dir),
        "MAX_CACHE_SIZE": str(c.max_cache_size),
        "CACHE_SIZE_BYTES": str(c.max_cache_bytes),
        "CACHE_TTL_SECONDS": caching.ttl_text(c.cache_ttl_seconds),
        "CACHE_POLICY": caching.policy_text(c.cache_policy),
        "CACHE_MASKS": caching.masks_text(c.cache_masks),
        "CACHE_MODE": c.cache_mode,
        "CACHE_PACE": str(c.cache_pace),
        "CACHE_SHARED": str(c.cache_shared).lower(),
        "ENABLE_PROFILING": str(c.enable_profiling).lower(),
        "UPSTREAM_STREAM": c.upstream_stream,
        "UPSTREAM_USAGE": c.upstream_usage,
        "LLMPOD_CONNECT_SECONDS": str(c.connect_seconds),
        "LLMPOD_FIRST_BYTE_SECONDS": str(c.first_byte_seconds),
        "LLMPOD_IDLE_SECONDS": str(c.silence_seconds),
        "LLMPOD_TOTAL_SECONDS": str(c.total_seconds),
        "KEEPALIVE_SECONDS": str(c.keepalive_seconds),
        "KEEPALIVE_FORM": c.keepalive_form,
        "KEEPALIVE_JSON": str(c.keepalive_json).lower(),
        "FINISH_SECONDS": str(c.finish_seconds),
        "PREWARM_CACHE": str(c.prewarm_cache or ""),
        "PREWARM_PROMPTS": str(c.prewarm_prompts),
        "PREWARM_TOKENS": str(c.prewarm_tokens),
        "PREWARM_USD": str(c.prewarm_usd),
        **_model_environ(config),
        **_model_limits_environ(config),
        **_edge_environ(c),
        **_demand_environ(config),
    }
    if c.auth is Auth.KEYS:
        values["LLMPOD_KEYS_FILE"] = str(store.directory / KEYS_FILE)
        values["LLMPOD_OWN_KEY"] = digest_of(store.proxy_key.reveal())
    if c.use_https:
        values |= {"USE_HTTPS": "true", "SSL_CERT": str(c.ssl_cert), "SSL_KEY": str(c.ssl_key)}
    return {name: environ[name] for name in INHERITED if name in environ} | values


def _edge_environ(c: PodConfig) -> dict[str, str]:
    """Who may call the proxy; nothing where that is as ever."""
    values = {
        "LLMPOD_HOST": "" if c.proxy_host == "127.0.0.1" else c.proxy_host,
        "LLMPOD_AUTH": "" if c.auth is Auth.OPEN else str(c.auth),
        "LLMPOD_ALLOWED_HOSTS": ",".join(c.allowed_hosts),
        "LLMPOD_CORS_ORIGINS": ",".join(c.cors_origins),
        "LLMPOD_ALLOW_INSECURE_BIND": "true" if c.allow_insecure_bind else "",
        "LLMPOD_ALLOW_PLAIN_HTTP": "true" if c.allow_plain_http else "",
        "LLMPOD_REQUESTS_PER_MINUTE": str(c.requests_per_minute or ""),
        "LLMPOD_TOKENS_PER_MINUTE": str(c.tokens_per_minute or ""),
        "LLMPOD_RATE_LIMITS": rates_text(c.rate_limits),
        "LLMPOD_TOKEN_PRICES": rates_text(c.token_prices),
        "LLMPOD_MEMORY_BYTES": "" if c.proxy_memory_bytes == 2**28 else str(c.proxy_memory_bytes),
        "LLMPOD_MAX_IN_FLIGHT": "" if c.max_in_flight == 256 else str(c.max_in_flight),
    }
    return {name: value for name, value in values.items() if value}


def _model_limits_environ(config: Config) -> dict[str, str]:
    limits = {name: model.rate_limit for name, model in config.models.items() if model.rate_limit}
    return {"LLMPOD_MODEL_LIMITS": rates_text(limits)} if limits else {}


def demand_of(config: Config) -> dict[str, Demand]:
    """The models that requests start."""
    return {
        name: Demand(
            model.idle_limit,
            model.start_timeout_seconds,
            config.group_of(name),
            model.priority,
            model.preload,
            model.wake_on_request or not model.is_billed,
        )
        for name, model in config.models.items()
        if model.on_request
    }


def on_demand_environ(config: Config) -> dict[str, str]:
    """What a proxy that a person started needs to have the model of this configuration started."""
    return _model_environ(config) | _demand_environ(config)


def _model_environ(config: Config) -> dict[str, str]:
    """Where the model will be, and what it is called before it was ever started."""
    c = config.models[config.default]
    served = "" if c.served_model_name == ANY_NAME else c.served_model_name
    routes = routes_of(config)
    return {
        **({"LLMPOD_ROUTES": routes_text(routes)} if routes else {}),
        "LLMPOD_CONFIG": str(config.path),
        "LLMPOD_STATE": str(config.state_file),
        "LLMPOD_IDENTITY": identity_of(c.model_dump(mode="json", exclude_defaults=True)),
        "LLMPOD_MODELS": ",".join(filter(None, (served, c.hub_id.partition("@")[0]))),
        "LLMPOD_OPEN_NAMES": "true" if has_more_names(c) else "",
        "LLMPOD_MAX_MODEL_LEN": str(c.max_model_len or ""),
    }


def routes_of(config: Config) -> tuple[Route, ...]:
    """The ways in to several models, or to one that has more than its name; the default one first."""
    names = sorted(config.models, key=lambda name: name != config.default)
    named = names != [DEFAULT_MODEL]  # else the name is ours
    routes = tuple(_route(name, config.models[name], named=named) for name in names)
    alone, limited = routes[0], config.models[config.default].rate_limit is not None
    needed = len(routes) > 1 or alone.filters or alone.path or len(alone.names) > 1 or limited
    return routes if needed else ()


def _route(name: str, model: PodConfig, *, named: bool) -> Route:
    hub_id = model.hub_id.partition("@")[0]
    served = hub_id if model.served_model_name is None else model.served_model_name.replace(ANY_NAME, "")
    own = (name,) if named else ()
    return Route(
        model_key=name,
        model=hub_id,
        names=tuple(dict.fromkeys(n for n in (served, hub_id, *own, *model.aliases) if n)),
        path=model.path or "",
        identity=identity_of(model.model_dump(mode="json", exclude_defaults=True)),
        max_model_len=model.max_model_len,
        served=served,
        open=has_more_names(model),
        defaults=dict(model.defaults),
        set=dict(model.set),
        strip=model.strip,
        system_prompt=model.system_prompt or "",
    )


def _demand_environ(config: Config) -> dict[str, str]:
    """What the proxy needs to have models started; nothing where it never does."""
    demand = demand_of(config)
    if not demand:
        return {}
    return {
        "LLMPOD_DEMAND": demand_text(demand),
        "LLMPOD_LOADING": loading_text(config.common.loading),
    }
