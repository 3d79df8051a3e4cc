"""Not a firewall: refuses to start where strangers could spend money or read answers, unless told so plainly."""

from llmpod.config import Auth, ProxySettings, in_the_clear, read_keys
from llmpod.errors import ConfigError
from llmpod.observe import Log
from llmpod.places import is_loopback
from llmpod.proxy import peer


def check(settings: ProxySettings, log: Log) -> None:
    """Look at who could reach the proxy and what it would ask of them.

    Raises:
        ConfigError: it would be open to other machines without keys or in clear, or asks what cannot be known here;
            or prompts would leave this machine in clear (T15).
    """
    if settings.auth is Auth.SAME_USER and not peer.known():
        raise ConfigError(
            "This system does not say whose program a connection belongs to, so `auth` cannot be `same-user`.",
            hint="Use `keys`.",
        )
    has_keys = (
        settings.auth is Auth.KEYS and settings.keys_file is not None and bool(read_keys(settings.keys_file))
    )
    if settings.auth is Auth.KEYS and not has_keys:
        log.warning("no_keys", reason="Nobody can call: make a key with `manage_pod.py keys add NAME`.")
    if settings.endpoint is not None and in_the_clear(settings.endpoint):
        _in_the_clear(settings, log)
    if is_loopback(settings.host):
        return
    missing = [what for what, there in (("keys", has_keys), ("TLS", settings.use_https)) if not there]
    if not missing:
        return
    if not settings.allow_insecure_bind:
        raise ConfigError(
            f"Listening on {settings.host} would let other machines in without {' and without '.join(missing)}.",
            hint="Listen on 127.0.0.1, or set `auth` to `keys` with a key and `use_https` with a certificate;"
            " `allow_insecure_bind` overrides this.",
        )
    log.warning("insecure_bind", host=settings.host, missing=", ".join(missing))


def _in_the_clear(settings: ProxySettings, log: Log) -> None:
    why = f"RUNPOD_ENDPOINT: over http others could read all that is sent to {settings.endpoint}."
    if not settings.allow_plain_http:
        raise ConfigError(
            why,
            hint="Use https or a tunnel (`ssh -L`); on a network that you trust, set LLMPOD_ALLOW_PLAIN_HTTP=1.",
        )
    log.warning("plain_upstream", reason=why)
