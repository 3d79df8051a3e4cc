"""Not the proxy: its settings, read once from the environment and the command line."""

import argparse
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from llmpod.errors import ConfigError

UpstreamStream = Literal["auto", "always", "never"]


class Auth(StrEnum):
    """Who may call the proxy."""

    OPEN = "open"  # every program on this machine, as editors expect of a local server
    SAME_USER = "same-user"  # programs of the user who runs it
    KEYS = "keys"  # who has a key (``manage_pod.py keys``)


_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Everything the proxy process needs to know. Sizes in bytes, times in seconds.

    ``own_key`` is the SHA-256 of the key of our own commands.
    ``endpoint`` is a fixed upstream (base URL without ``/v1``); without it ``state_file`` is followed.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    endpoint: str | None = None
    endpoint_key: str | None = None
    state_file: Path | None = None
    models: tuple[str, ...] = ()
    token: str = ""
    cache_dir: Path | None = Path("/tmp/llm_cache")  # noqa: S108 - the mission fixed this default
    max_cache_size: int = 1000
    max_cache_bytes: int = 2**30
    enable_profiling: bool = False
    prewarm_cache: str | None = None
    use_https: bool = False
    ssl_cert: Path | None = None
    ssl_key: Path | None = None
    log_level: str = "INFO"
    upstream_stream: UpstreamStream = "auto"
    drain_seconds: float = 8.0
    connect_seconds: float = 5.0
    first_byte_seconds: float = 300.0
    idle_seconds: float = 120.0
    total_seconds: float = 3600.0
    keep_alive_seconds: float = 75.0
    max_body_bytes: int = 32 * 2**20
    max_header_bytes: int = 32 * 2**10
    auth: Auth = Auth.OPEN
    keys_file: Path | None = None
    own_key: str = ""
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allow_insecure_bind: bool = False
    header_seconds: float = 10.0
    body_idle_seconds: float = 30.0
    stall_seconds: float = 60.0
    max_connections: int = 4096
    max_connections_per_source: int = 256
    max_in_flight: int = 256
    max_queue: int = 256
    queue_seconds: float = 30.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

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


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
# environment variable -> (field, how to read it); names up to PORT are the mission's
_VARIABLES: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "RUNPOD_ENDPOINT": ("endpoint", lambda _, text: base_url(text)),
    "CACHE_DIR": ("cache_dir", lambda _, text: Path(text).expanduser()),
    "MAX_CACHE_SIZE": ("max_cache_size", _count(0, 10**9)),
    "CACHE_SIZE_BYTES": ("max_cache_bytes", _count(0, 2**50)),
    "ENABLE_PROFILING": ("enable_profiling", _flag),
    "PREWARM_CACHE": ("prewarm_cache", lambda _, text: text),
    "USE_HTTPS": ("use_https", _flag),
    "SSL_CERT": ("ssl_cert", lambda _, text: Path(text).expanduser()),
    "SSL_KEY": ("ssl_key", lambda _, text: Path(text).expanduser()),
    "PORT": ("port", _count(0, 65535)),
    "RUNPOD_ENDPOINT_KEY": ("endpoint_key", lambda _, text: text.strip()),
    "UPSTREAM_STREAM": ("upstream_stream", _choice("auto", "always", "never")),
    "LOG_LEVEL": ("log_level", _choice(*_LEVELS)),
    "LLMPOD_STATE": ("state_file", lambda _, text: Path(text)),
    "LLMPOD_MODELS": ("models", lambda _, text: tuple(m for m in text.split(",") if m)),
    "LLMPOD_PROXY_TOKEN": ("token", lambda _, text: text),
    "LLMPOD_FIRST_BYTE_SECONDS": ("first_byte_seconds", _seconds),
    "LLMPOD_IDLE_SECONDS": ("idle_seconds", _seconds),
    "LLMPOD_DRAIN_SECONDS": ("drain_seconds", _seconds),
    "LLMPOD_KEEP_ALIVE_SECONDS": ("keep_alive_seconds", _seconds),
    "LLMPOD_HEADER_SECONDS": ("header_seconds", _seconds),
    "LLMPOD_BODY_IDLE_SECONDS": ("body_idle_seconds", _seconds),
    "LLMPOD_STALL_SECONDS": ("stall_seconds", _seconds),
    "LLMPOD_MAX_CONNECTIONS": ("max_connections", _count(1, 10**6)),
    "LLMPOD_MAX_CONNECTIONS_PER_SOURCE": ("max_connections_per_source", _count(1, 10**6)),
    "LLMPOD_MAX_IN_FLIGHT": ("max_in_flight", _count(1, 10**6)),
    "LLMPOD_MAX_QUEUE": ("max_queue", _count(1, 10**6)),
    "LLMPOD_QUEUE_SECONDS": ("queue_seconds", _seconds),
    "LLMPOD_REQUESTS_PER_MINUTE": ("requests_per_minute", _count(1, 10**9)),
    "LLMPOD_TOKENS_PER_MINUTE": ("tokens_per_minute", _count(1, 10**12)),
    "LLMPOD_HOST": ("host", lambda _, text: text.strip()),
    "LLMPOD_AUTH": ("auth", lambda name, text: Auth(_choice(*Auth)(name, text))),
    "LLMPOD_KEYS_FILE": ("keys_file", lambda _, text: Path(text).expanduser()),
    "LLMPOD_OWN_KEY": ("own_key", lambda _, text: text.strip()),
    "LLMPOD_ALLOWED_HOSTS": ("allowed_hosts", lambda _, text: _words(text)),
    "LLMPOD_CORS_ORIGINS": ("cors_origins", lambda _, text: _words(text)),
    "LLMPOD_ALLOW_INSECURE_BIND": ("allow_insecure_bind", _flag),
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
    if settings.auth is Auth.KEYS and settings.keys_file is None:
        raise ConfigError("LLMPOD_AUTH=keys needs LLMPOD_KEYS_FILE.", hint="Make it: manage_pod.py keys add.")
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
