"""Not the cache: which directory the ``cache`` commands are about, and by which settings its proxy works."""

import argparse
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from llmpod.cache import Contents, KeyPolicy
from llmpod.cli.command import Invocation
from llmpod.cli.proxyenv import proxy_environ
from llmpod.config import ProxySettings, proxy_settings
from llmpod.errors import LlmpodError
from llmpod.lifecycle.share import Follower
from llmpod.lifecycle.store import Store
from llmpod.proxy.ask import key_policy
from llmpod.proxy.route import Destination, fixed, followed

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Place:
    """One cache directory, and the settings of the proxy that uses it.

    Args:
        directory: of the cache.
        settings: those of the manager's proxy; with an endpoint, those of one that was started with this environment.
        named: by a person on the command line; then it is there, or misspelt.
    """

    directory: Path
    settings: ProxySettings
    named: bool = False

    @classmethod
    def of(cls, call: Invocation, *, endpoint: str | None = None) -> "Place":
        """What the command line, the configuration and, for an endpoint, the environment say. Raises ConfigError."""
        if endpoint is None:
            loaded = call.config()
            environ = proxy_environ(loaded, call.environ, Store(loaded.state_file))
        else:
            environ = {**call.environ, "RUNPOD_ENDPOINT": endpoint}
        settings = proxy_settings([], environ)
        directory = call.options.dir or settings.cache_dir
        if directory is None:
            raise LlmpodError("That proxy has no cache directory.", hint="Name one: --dir DIR")
        return cls(directory.expanduser(), settings, named=call.options.dir is not None)

    @property
    def policy(self) -> KeyPolicy:
        """What counts in keys, and what may be stored."""
        return key_policy(self.settings)

    @property
    def ttl_seconds(self) -> float | None:
        """How long an answer is served; None: for ever."""
        return self.settings.entry_seconds

    @property
    def exists(self) -> bool:
        """Whether there is such a directory yet. Raises LlmpodError where one was named and there is none."""
        there = self.directory.exists()
        if self.named and not there:
            raise LlmpodError(
                f"{self.directory} does not exist.", hint="--dir names the directory of a cache."
            )
        return there

    def contents(self) -> Contents | None:
        """What is in the directory; None before there is one. Raises StateError, LlmpodError."""
        return Contents(self.directory) if self.exists else None

    def destinations(self) -> tuple[Destination, ...]:
        """The models as the proxy sees them. Raises StateError."""
        settings = self.settings
        if settings.endpoint is not None or settings.state_file is None:
            return (fixed(settings),)
        return followed(Follower(settings.state_file).read().targets, settings)


def read_input(name: str) -> str:
    """The text of a file; ``-`` is standard input. Raises LlmpodError."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).expanduser().read_text(encoding="utf-8")
    except OSError as e:
        raise LlmpodError(f"Cannot read {name}: {e.strerror}.") from None
    except UnicodeDecodeError as e:
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
