"""Not the proxy: its settings, read once from the environment and the command line."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from llmpod.config.addresses import base_url
from llmpod.config.caching import ALL_MASKS, MODES, WEEK, read_masks, read_policy, read_ttl
from llmpod.config.children import A_PASS
from llmpod.config.cmdline import Parser
from llmpod.config.demand import Demand, read_demand, read_loading
from llmpod.config.rates import RateLimit, TokenPrice, read_model_limits, read_prices, read_rates
from llmpod.config.routes import Route, read_routes
from llmpod.config.settings_file import SETTINGS_VARIABLE, read_settings
from llmpod.config.words import amount, choice, count, flag, none_or_seconds, seconds, words
from llmpod.errors import ConfigError
from llmpod.secret import Secret

UpstreamStream = Literal["auto", "always", "never"]
UpstreamUsage = Literal["auto", "always", "asked"]
KeepaliveForm = Literal["auto", "comment", "event"]


class Auth(StrEnum):
    """Who may call the proxy."""

    OPEN = "open"  # every program on this machine, as editors expect of a local server
    SAME_USER = "same-user"  # programs of the user who runs it
    KEYS = "keys"  # who has a key (``manage_pod.py keys``)


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Everything the proxy process needs to know. Sizes in bytes, times in seconds.

    ``endpoint`` is a fixed upstream (base URL without ``/v1``); without it ``state_file`` is followed. ``models``
    are the names of one model, its own id last, ``identity`` stands for it in cache keys, and ``max_model_len`` is
    its context length; a state knows better. ``open_names``: its server may know more names than these.
    ``routes``: the ways in to several models, the default one first. ``demand``: those that requests start, by the
    manager of ``config_file`` with ``manager_environ`` alone; ``loading``: what clients get meanwhile, by User-Agent.
    ``cache_policy`` by path, ``*`` for the rest; ``cache_ttl_seconds`` None: for ever; ``cache_pace`` in events a
    second, 0: at once. ``own_key`` is the SHA-256 of the key of our own commands. ``rate_limits`` by pattern of path,
    ``model_limits`` by the model's name in the configuration, ``token_prices`` by model, ``*`` for the rest.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    endpoint: str | None = None
    endpoint_key: Secret | None = None
    state_file: Path | None = None
    models: tuple[str, ...] = ()
    open_names: bool = False
    identity: str = ""
    max_model_len: int | None = None
    token: str = ""
    cache_dir: Path | None = Path("/tmp/llm_cache")  # noqa: S108 - the mission fixed this default
    max_cache_size: int = 1000
    max_cache_bytes: int = 2**30
    cache_ttl_seconds: float | None = WEEK
    cache_policy: Mapping[str, str] = field(default_factory=dict)
    cache_masks: tuple[str, ...] = ALL_MASKS
    cache_mode: str = "normal"
    cache_pace: int = 0
    cache_shared: bool = False
    enable_profiling: bool = False
    prewarm_cache: str | None = None
    prewarm_prompts: int = 0
    prewarm_tokens: int = 32768
    prewarm_usd: float = 0.01
    use_https: bool = False
    ssl_cert: Path | None = None
    ssl_key: Path | None = None
    log_level: str = "INFO"
    upstream_stream: UpstreamStream = "auto"
    upstream_usage: UpstreamUsage = "auto"
    keepalive_seconds: float = 15.0
    keepalive_form: KeepaliveForm = "auto"
    keepalive_json: bool = False
    finish_seconds: float = 0.0
    drain_seconds: float = 8.0
    connect_seconds: float = 5.0
    first_byte_seconds: float = 300.0
    idle_seconds: float = 120.0
    total_seconds: float = 3600.0
    keep_alive_seconds: float = 75.0
    max_body_bytes: int = 32 * 2**20
    max_bodies_bytes: int = 256 * 2**20
    max_header_bytes: int = 32 * 2**10
    auth: Auth = Auth.OPEN
    keys_file: Path | None = None
    own_key: str = ""
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allow_insecure_bind: bool = False
    allow_plain_http: bool = False
    settings_file: Path | None = None
    settings_digest: str = ""
    memory_bytes: int = 256 * 2**20
    header_seconds: float = 10.0
    body_idle_seconds: float = 30.0
    stall_seconds: float = 60.0
    max_connections: int = 4096
    max_connections_per_source: int = 256
    max_in_flight: int = 256
    max_queue: int = 192
    queue_seconds: float = 30.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    rate_limits: Mapping[str, RateLimit] = field(default_factory=dict)
    model_limits: Mapping[str, RateLimit] = field(default_factory=dict)
    token_prices: Mapping[str, TokenPrice] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    demand: Mapping[str, Demand] = field(default_factory=dict)
    loading: Mapping[str, str] = field(default_factory=lambda: {"*": "auto"})
    config_file: Path | None = None
    manager_environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def entry_seconds(self) -> float | None:
        """How long an entry is served; None: for ever, as recordings are, which stay until they are made anew."""
        return self.cache_ttl_seconds if self.cache_mode == "normal" else None

    def __repr__(self) -> str:
        return f"ProxySettings(http{'s' if self.use_https else ''}://{self.host}:{self.port})"


_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
# environment variable -> (field, how to read it); names up to PORT are the mission's
VARIABLES: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "RUNPOD_ENDPOINT": ("endpoint", lambda _, text: base_url(text)),
    "CACHE_DIR": ("cache_dir", lambda _, text: Path(text).expanduser()),
    "MAX_CACHE_SIZE": ("max_cache_size", count(0, 10**9)),
    "CACHE_SIZE_BYTES": ("max_cache_bytes", count(0, 2**50)),
    "CACHE_TTL_SECONDS": ("cache_ttl_seconds", read_ttl),
    "CACHE_POLICY": ("cache_policy", read_policy),
    "CACHE_MASKS": ("cache_masks", read_masks),
    "CACHE_SHARED": ("cache_shared", flag),
    "CACHE_MODE": ("cache_mode", choice(*MODES)),
    "CACHE_PACE": ("cache_pace", count(0, 10_000)),
    "ENABLE_PROFILING": ("enable_profiling", flag),
    "PREWARM_CACHE": ("prewarm_cache", lambda _, text: text),
    "PREWARM_PROMPTS": ("prewarm_prompts", count(0, 32)),
    "PREWARM_TOKENS": ("prewarm_tokens", count(1, 10**7)),
    "PREWARM_USD": ("prewarm_usd", amount),
    "USE_HTTPS": ("use_https", flag),
    "SSL_CERT": ("ssl_cert", lambda _, text: Path(text).expanduser()),
    "SSL_KEY": ("ssl_key", lambda _, text: Path(text).expanduser()),
    "PORT": ("port", count(0, 65535)),
    "RUNPOD_ENDPOINT_KEY": ("endpoint_key", lambda name, text: Secret(text.strip(), f"${name}")),
    "UPSTREAM_STREAM": ("upstream_stream", choice("auto", "always", "never")),
    "LOG_LEVEL": ("log_level", choice(*_LEVELS)),
    "LLMPOD_STATE": ("state_file", lambda _, text: Path(text)),
    "LLMPOD_IDENTITY": ("identity", lambda _, text: text),
    "LLMPOD_MODELS": ("models", lambda _, text: tuple(m for m in text.split(",") if m)),
    "LLMPOD_OPEN_NAMES": ("open_names", flag),
    "LLMPOD_MAX_MODEL_LEN": ("max_model_len", count(1, 10**9)),
    "LLMPOD_PROXY_TOKEN": ("token", lambda _, text: text),
    "UPSTREAM_USAGE": ("upstream_usage", choice("auto", "always", "asked")),
    "KEEPALIVE_SECONDS": ("keepalive_seconds", none_or_seconds),
    "KEEPALIVE_FORM": ("keepalive_form", choice("auto", "comment", "event")),
    "KEEPALIVE_JSON": ("keepalive_json", flag),
    "FINISH_SECONDS": ("finish_seconds", none_or_seconds),
    "LLMPOD_CONNECT_SECONDS": ("connect_seconds", seconds),
    "LLMPOD_FIRST_BYTE_SECONDS": ("first_byte_seconds", seconds),
    "LLMPOD_IDLE_SECONDS": ("idle_seconds", seconds),
    "LLMPOD_TOTAL_SECONDS": ("total_seconds", seconds),
    "LLMPOD_MEMORY_BYTES": ("memory_bytes", count(0, 2**50)),
    "LLMPOD_DRAIN_SECONDS": ("drain_seconds", seconds),
    "LLMPOD_KEEP_ALIVE_SECONDS": ("keep_alive_seconds", seconds),
    "LLMPOD_HEADER_SECONDS": ("header_seconds", seconds),
    "LLMPOD_BODY_IDLE_SECONDS": ("body_idle_seconds", seconds),
    "LLMPOD_STALL_SECONDS": ("stall_seconds", seconds),
    "LLMPOD_MAX_CONNECTIONS": ("max_connections", count(1, 10**6)),
    "LLMPOD_MAX_CONNECTIONS_PER_SOURCE": ("max_connections_per_source", count(1, 10**6)),
    "LLMPOD_MAX_BODIES_BYTES": ("max_bodies_bytes", count(1, 2**50)),
    "LLMPOD_MAX_IN_FLIGHT": ("max_in_flight", count(1, 10**6)),
    "LLMPOD_MAX_QUEUE": ("max_queue", count(1, 10**6)),
    "LLMPOD_QUEUE_SECONDS": ("queue_seconds", seconds),
    "LLMPOD_REQUESTS_PER_MINUTE": ("requests_per_minute", count(1, 10**9)),
    "LLMPOD_TOKENS_PER_MINUTE": ("tokens_per_minute", count(1, 10**12)),
    "LLMPOD_RATE_LIMITS": ("rate_limits", read_rates),
    "LLMPOD_MODEL_LIMITS": ("model_limits", read_model_limits),
    "LLMPOD_TOKEN_PRICES": ("token_prices", read_prices),
    "LLMPOD_HOST": ("host", lambda _, text: text.strip()),
    "LLMPOD_AUTH": ("auth", lambda name, text: Auth(choice(*Auth)(name, text))),
    "LLMPOD_KEYS_FILE": ("keys_file", lambda _, text: Path(text).expanduser()),
    "LLMPOD_OWN_KEY": ("own_key", lambda _, text: text.strip()),
    "LLMPOD_ALLOWED_HOSTS": ("allowed_hosts", lambda _, text: words(text)),
    "LLMPOD_CORS_ORIGINS": ("cors_origins", lambda _, text: words(text)),
    "LLMPOD_ALLOW_INSECURE_BIND": ("allow_insecure_bind", flag),
    "LLMPOD_ALLOW_PLAIN_HTTP": ("allow_plain_http", flag),
    "LLMPOD_ROUTES": ("routes", read_routes),
    "LLMPOD_DEMAND": ("demand", read_demand),
    "LLMPOD_LOADING": ("loading", read_loading),
    "LLMPOD_CONFIG": ("config_file", lambda _, text: Path(text)),
}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="proxy_fastapi.py",
        description="A caching OpenAI-compatible address in front of one model server.",
        epilog="To start a model server with the first request: proxy_fastapi.py [options] -- COMMAND…"
        " (`proxy_fastapi.py --help --` lists these options). Environment: " + ", ".join(VARIABLES),
    )
    parser.stray = "to start a command with the first request, write `--` before it: [options] -- COMMAND…"
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8000)")
    parser.add_argument("--log-level", choices=_LEVELS, help="least severe level to log (default INFO)")
    return parser


def proxy_settings(
    argv: Sequence[str], environ: Mapping[str, str], *, home: Path | None = None
) -> ProxySettings:
    """Read the proxy's settings; flags win over the file that the environment names, that over the environment.

    Args:
        argv: arguments without the program's name.
        environ: the environment.
        home: directory whose ``pod_state.json`` is followed when nothing names an upstream.

    Raises:
        ConfigError: a value is wrong, or nothing says where the model server is.
        SystemExit: ``--help`` or an unknown flag (argparse).
    """
    values: dict[str, Any] = {}
    if path := environ.get(SETTINGS_VARIABLE):
        more, digest = read_settings(Path(path))
        environ = {**environ, **more}
        values |= {"settings_file": Path(path), "settings_digest": digest}
    values |= {
        field: read(name, environ[name])
        for name, (field, read) in VARIABLES.items()
        if environ.get(name, "") != ""
    }
    flags = vars(_parser().parse_args(argv))
    values |= {name: value for name, value in flags.items() if value is not None}
    if home and not values.get("endpoint") and not values.get("state_file"):
        values["state_file"] = _state_beside(home)
    values["manager_environ"] = {name: environ[name] for name in A_PASS if name in environ}
    settings = ProxySettings(**values)
    if settings.use_https and not (settings.ssl_cert and settings.ssl_key):
        raise ConfigError("USE_HTTPS needs SSL_CERT and SSL_KEY.", hint="Name both files.")
    if settings.auth is Auth.KEYS and settings.keys_file is None:
        raise ConfigError("LLMPOD_AUTH=keys needs LLMPOD_KEYS_FILE.", hint="Make it: manage_pod.py keys add.")
    return settings


def _state_beside(home: Path) -> Path:
    state = home / "pod_state.json"
    if not state.exists():
        raise ConfigError(
            "Nothing says where the model server is.",
            hint="Set RUNPOD_ENDPOINT=https://HOST/v1/chat/completions, or run `python3 manage_pod.py`.",
        )
    return state
