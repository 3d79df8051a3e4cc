"""Not the cache: which directory, which rules and whose answers the ``cache`` commands are about."""

import argparse
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from llmpod.cache import Contents, KeyPolicy
from llmpod.cli.command import Invocation
from llmpod.config import PodConfig, ProxySettings, base_url, caching
from llmpod.errors import LlmpodError
from llmpod.lifecycle.store import Follower
from llmpod.proxy.route import Destination, fixed, followed

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Place:
    """One cache directory and the configuration that belongs to it.

    Args:
        directory: of the cache.
        config: the proxy's part of it counts.
        state_file: names the models.
    """

    directory: Path
    config: PodConfig
    state_file: Path

    @classmethod
    def of(cls, call: Invocation) -> "Place":
        """What the command line and the configuration say. Raises ConfigError."""
        loaded = call.config()
        directory = call.options.dir.expanduser() if call.options.dir else loaded.common.cache_dir
        return cls(directory, loaded.common, loaded.state_file)

    @property
    def policy(self) -> KeyPolicy:
        """What counts in keys, and what may be stored: as the proxy has it."""
        c = self.config
        return KeyPolicy(masks=frozenset(c.cache_masks), storing=caching.by_path(c.cache_policy))

    def contents(self) -> Contents | None:
        """What is in the directory; None before there is one. Raises StateError."""
        return Contents(self.directory) if self.directory.exists() else None

    def destinations(self, endpoint: str | None) -> tuple[Destination, ...]:
        """The models as the proxy sees them. Raises ConfigError, StateError."""
        if endpoint is not None:
            return (fixed(ProxySettings(endpoint=base_url(endpoint))),)
        c = self.config
        settings = ProxySettings(models=(c.served_model_name or c.hub_id.partition("@")[0],))
        return followed(Follower(self.state_file).read(), settings)


def read_input(name: str) -> str:
    """The text of a file; ``-`` is standard input. Raises LlmpodError."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise LlmpodError(f"Cannot read {name}: {e}.") from None


def seconds(text: str) -> float:
    """An argument type: ``90``, ``10m``, ``2h`` or ``7d``."""
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 90, 10m, 2h or 7d")
    return float(int(found[1]) * _UNITS[found[2] or "s"])


def count(text: str) -> int:
    """An argument type: a whole number from 0 up."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def key_prefix(text: str) -> str:
    """An argument type: a key or its beginning."""
    if re.fullmatch(r"[0-9a-fA-F]{4,64}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a key: 4 to 64 hexadecimal digits, see `cache ls`")
    return text.lower()


def now() -> float:
    """Seconds since the epoch."""
    return time.time()
