"""Not the settings: which of the proxy's can change while it runs."""

from collections.abc import Iterator
from dataclasses import fields

from llmpod.config.proxy import VARIABLES, ProxySettings

# what only a new process can have: its sockets, its directory, and what is made once at its start
FIXED = (
    frozenset(
        (
            "host",
            "port",
            "use_https",
            "ssl_cert",
            "ssl_key",
            "cache_dir",
            "endpoint",
            "endpoint_key",
            "state_file",
        )
    )
    | {"token", "prewarm_cache", "prewarm_prompts", "prewarm_tokens", "prewarm_usd"}
    | {"config_file", "manager_environ"}
)
_BOOKKEEPING = frozenset({"settings_file", "settings_digest"})


def needs_restart(variable: str) -> bool:
    """Whether a running proxy cannot take over another value of this variable."""
    return variable not in VARIABLES or VARIABLES[variable][0] in FIXED


def changed(before: ProxySettings, after: ProxySettings) -> Iterator[str]:
    """The names of the fields in which two settings differ."""
    for field in fields(ProxySettings):
        name = field.name
        if name not in _BOOKKEEPING and getattr(before, name) != getattr(after, name):
            yield name
