"""Not a resolver: what a written address means: of our proxy, of a model server, and who may read what goes there."""

from urllib.parse import SplitResult, urlsplit

from llmpod.errors import ConfigError
from llmpod.places import is_loopback, no_server_at


def reached_at(host: str) -> str:
    """Where a proxy that listens on ``host`` is reached from this machine."""
    return "127.0.0.1" if host in ("", "0.0.0.0", "::", "localhost") else host  # noqa: S104 - compared, not bound


def base_url(url: str, *, name: str = "RUNPOD_ENDPOINT") -> str:
    """Reduce a model server's URL to what stands before ``/v1``.

    Args:
        url: what a person wrote.
        name: of the setting, for messages.

    Raises:
        ConfigError: not an http(s) URL, carries credentials, a query, or a link-local host (cloud metadata).
    """
    parts = _split(url.strip())
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"{name} is not an http(s) URL: {url!r}.",
            hint="Example: https://PODID-8000.proxy.runpod.net/v1/chat/completions",
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(f"{name} may not carry a user, a password, a query or a fragment.")
    if what := no_server_at(parts.hostname):
        raise ConfigError(f"{name} names {parts.hostname}, which is {what}.")
    path = parts.path.rstrip("/")
    head, found, _ = f"{path}/".rpartition("/v1/")
    return f"{parts.scheme}://{parts.netloc}{head if found else path}"


def _split(url: str) -> SplitResult | None:
    """Its parts; None where the port is none, the host no name that can be asked for, or a character not ASCII."""
    try:
        url.encode("ascii")
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        return parts if parts.port != 0 else None
    except ValueError:
        return None


def in_the_clear(url: str) -> bool:
    """Whether what is sent there goes over a network on which others can read it (T15)."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")
