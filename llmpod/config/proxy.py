"""Not the proxy: its settings, read once from the environment and the command line."""

import argparse
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from llmpod.config.caching import (
    ALL_MASKS,
    MODES,
    WEEK,
    read_masks,
    read_policy,
    read_ttl,
)
from llmpod.errors import ConfigError

UpstreamStream = Literal["auto", "always", "never"]
UpstreamUsage = Literal["auto", "always", "asked"]
KeepaliveForm = Literal["auto", "comment", "event"]
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Everything the proxy process needs to know. Sizes in bytes, times in seconds.

    ``endpoint`` is a fixed upstream (base URL without ``/v1``); without it ``state_file`` is followed. ``models``
    are the names of one model, its own id last, and ``max_model_len`` is its context length; a state knows better.
    ``cache_policy`` by path, ``*`` for the rest; ``cache_ttl_seconds`` None: for ever; ``cache_pace`` in events a
    second, 0: at once.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    endpoint: str | None = None
    endpoint_key: str | None = None
    state_file: Path | None = None
    models: tuple[str, ...] = ()
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
    max_header_bytes: int = 32 * 2**10

    @property
    def entry_seconds(self) -> float | None:
        """How long an entry is served; None: for ever, as recordings are, which stay until they are made anew."""
        return self.cache_ttl_seconds if self.cache_mode == "normal" else None

    def __repr__(self) -> str:
        return f"ProxySettings(http{'s' if self.use_https else ''}://{self.host}:{self.port})"


def base_url(url: str) -> str:
    """Reduce a model server's URL to what stands before ``/v1``.

    Raises:
        ConfigError: not an http(s) URL, carries credentials, a query, or a link-local host (cloud metadata).
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"RUNPOD_ENDPOINT is not an http(s) URL: {url!r}.",
            hint="Example: https://PODID-8000.proxy.runpod.net/v1/chat/completions",
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError("RUNPOD_ENDPOINT may not carry a user, a password, a query or a fragment.")
    _refuse_link_local(parts.hostname)
    path = parts.path.rstrip("/")
    head, found, _ = f"{path}/".rpartition("/v1/")
    return f"{parts.scheme}://{parts.netloc}{head if found else path}"


def _refuse_link_local(host: str) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        raise ConfigError(f"RUNPOD_ENDPOINT names {host}, which is no model server's address.")


def _flag(name: str, text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ConfigError(f"{name}={text!r} is neither true nor false.", hint="Write true or false.", param=name)


def _count(low: int, high: int) -> Callable[[str, str], int]:
    def read(name: str, text: str) -> int:
        try:
            value = int(text.strip())
        except ValueError:
            raise ConfigError(f"{name}={text!r} is not a whole number.", param=name) from None
        if not low <= value <= high:
            raise ConfigError(f"{name}={value} is outside {low}…{high}.", param=name)
        return value

    return read


def _choice(*words: str) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if (word := text.strip()) not in words:
            raise ConfigError(f"{name}={text!r} is not one of {', '.join(words)}.", param=name)
        return word

    return read


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise ConfigError(f"{name}={text!r} is not a number of seconds.", param=name)
    return value


def _amount(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e3:
        raise ConfigError(f"{name}={text!r} is not an amount in USD.", param=name)
    return value


def _none_or_seconds(name: str, text: str) -> float:
    return 0.0 if text.strip() in ("0", "0.0") else _seconds(name, text)


_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
# environment variable -> (field, how to read it); names up to PORT are the mission's
_VARIABLES: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "RUNPOD_ENDPOINT": ("endpoint", lambda _, text: base_url(text)),
    "CACHE_DIR": ("cache_dir", lambda _, text: Path(text).expanduser()),
    "MAX_CACHE_SIZE": ("max_cache_size", _count(0, 10**9)),
    "CACHE_SIZE_BYTES": ("max_cache_bytes", _count(0, 2**50)),
    "CACHE_TTL_SECONDS": ("cache_ttl_seconds", read_ttl),
    "CACHE_POLICY": ("cache_policy", read_policy),
    "CACHE_MASKS": ("cache_masks", read_masks),
    "CACHE_MODE": ("cache_mode", _choice(*MODES)),
    "CACHE_PACE": ("cache_pace", _count(0, 10_000)),
    "ENABLE_PROFILING": ("enable_profiling", _flag),
    "PREWARM_CACHE": ("prewarm_cache", lambda _, text: text),
    "PREWARM_PROMPTS": ("prewarm_prompts", _count(0, 32)),
    "PREWARM_TOKENS": ("prewarm_tokens", _count(1, 10**7)),
    "PREWARM_USD": ("prewarm_usd", _amount),
    "USE_HTTPS": ("use_https", _flag),
    "SSL_CERT": ("ssl_cert", lambda _, text: Path(text).expanduser()),
    "SSL_KEY": ("ssl_key", lambda _, text: Path(text).expanduser()),
    "PORT": ("port", _count(0, 65535)),
    "RUNPOD_ENDPOINT_KEY": ("endpoint_key", lambda _, text: text.strip()),
    "UPSTREAM_STREAM": ("upstream_stream", _choice("auto", "always", "never")),
    "LOG_LEVEL": ("log_level", _choice(*_LEVELS)),
    "LLMPOD_STATE": ("state_file", lambda _, text: Path(text)),
    "LLMPOD_MODELS": ("models", lambda _, text: tuple(m for m in text.split(",") if m)),
    "LLMPOD_MAX_MODEL_LEN": ("max_model_len", _count(1, 10**9)),
    "LLMPOD_PROXY_TOKEN": ("token", lambda _, text: text),
    "UPSTREAM_USAGE": ("upstream_usage", _choice("auto", "always", "asked")),
    "KEEPALIVE_SECONDS": ("keepalive_seconds", _none_or_seconds),
    "KEEPALIVE_FORM": ("keepalive_form", _choice("auto", "comment", "event")),
    "KEEPALIVE_JSON": ("keepalive_json", _flag),
    "FINISH_SECONDS": ("finish_seconds", _none_or_seconds),
    "LLMPOD_CONNECT_SECONDS": ("connect_seconds", _seconds),
    "LLMPOD_FIRST_BYTE_SECONDS": ("first_byte_seconds", _seconds),
    "LLMPOD_IDLE_SECONDS": ("idle_seconds", _seconds),
    "LLMPOD_TOTAL_SECONDS": ("total_seconds", _seconds),
    "LLMPOD_DRAIN_SECONDS": ("drain_seconds", _seconds),
    "LLMPOD_KEEP_ALIVE_SECONDS": ("keep_alive_seconds", _seconds),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proxy_fastapi.py",
        description="A caching OpenAI-compatible address in front of one model server.",
        epilog="Environment: " + ", ".join(_VARIABLES),
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8000)")
    parser.add_argument("--log-level", choices=_LEVELS, help="least severe level to log (default INFO)")
    return parser


def proxy_settings(
    argv: Sequence[str], environ: Mapping[str, str], *, home: Path | None = None
) -> ProxySettings:
    """Read the proxy's settings; flags win over the environment.

    Args:
        argv: arguments without the program's name.
        environ: the environment.
        home: directory whose ``pod_state.json`` is followed when nothing names an upstream.

    Raises:
        ConfigError: a value is wrong, or nothing says where the model server is.
        SystemExit: ``--help`` or an unknown flag (argparse).
    """
    values: dict[str, Any] = {
        field: read(name, environ[name])
        for name, (field, read) in _VARIABLES.items()
        if environ.get(name, "") != ""
    }
    flags = vars(_parser().parse_args(argv))
    values |= {name: value for name, value in flags.items() if value is not None}
    if home and not values.get("endpoint") and not values.get("state_file"):
        values["state_file"] = _state_beside(home)
    settings = ProxySettings(**values)
    if settings.use_https and not (settings.ssl_cert and settings.ssl_key):
        raise ConfigError("USE_HTTPS needs SSL_CERT and SSL_KEY.", hint="Name both files.")
    return settings


def _state_beside(home: Path) -> Path:
    state = home / "pod_state.json"
    if not state.exists():
        raise ConfigError(
            "Nothing says where the model server is.",
            hint="Set RUNPOD_ENDPOINT=https://HOST/v1/chat/completions, or start a pod with"
            " `python3 manage_pod.py`.",
        )
    return state
