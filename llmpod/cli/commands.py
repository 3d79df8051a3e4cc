"""Not their doing: the words of ``manage_pod.py``, in the order in which the help shows them, and where each lives.

Cron runs a pass every few minutes, and a pass needs no other command: so each is imported when its word was said
(all of them together cost a fifth of the program's start, measured).
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Final

from llmpod.cli.command import Command

_PLACES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "pass": ("passes", "PASS"),
        "attend": ("attend", "COMMAND"),
        "up": ("passes", "UP"),
        "down": ("passes", "DOWN"),
        "status": ("passes", "STATUS"),
        "switch": ("switch", "COMMAND"),
        "plan": ("passes", "PLAN"),
        "cost": ("cost", "COMMAND"),
        "catalog": ("catalog", "CATALOG"),
        "cache": ("cache", "COMMAND"),
        "logs": ("logs", "COMMAND"),
        "bench": ("bench", "COMMAND"),
        "download": ("download", "COMMAND"),
        "schedule": ("schedule", "COMMAND"),
        "service": ("service", "COMMAND"),
        "doctor": ("doctor", "COMMAND"),
        "panic": ("panic", "COMMAND"),
        "connect": ("connect", "COMMAND"),
        "keys": ("keys", "COMMAND"),
        "tls": ("tls", "COMMAND"),
        "init": ("init", "COMMAND"),
        "completion": ("completion", "COMMAND"),
        "run": ("run", "RUN"),
        "demo": ("run", "DEMO"),
    }
)
NAMES: Final[Sequence[str]] = tuple(_PLACES)


def commands(names: Iterable[str] = NAMES) -> list[Command]:
    """The commands of these names."""
    return [_load(name) for name in names]


def _load(name: str) -> Command:
    module, attribute = _PLACES[name]
    found: Command = getattr(import_module(f"llmpod.cli.{module}"), attribute)
    return found
