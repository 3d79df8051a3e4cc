"""Not the supervisor (``proxy_warden.py``): what it noted of the proxy's process, and what that means for people."""

from dataclasses import dataclass
from pathlib import Path

from llmpod.errors import StateError
from llmpod.lifecycle import files
from llmpod.lifecycle.typed import typed
from llmpod.text import ending

NOTES = "proxy_warden.json"
REST_SECONDS = 240.0  # before a proxy that was given up is tried again: less than cron's five minutes


@dataclass(frozen=True, slots=True)
class Crash:
    """When a proxy crashed (epoch seconds), and its exit code; negative: the signal."""

    at: float
    code: int

    def __str__(self) -> str:
        return ending(self.code)


@dataclass(frozen=True, slots=True)
class Notes:
    """What one warden has seen; ``crashes`` since it was started, ``proxy`` the pid of the one that runs now."""

    warden: int
    proxy: int | None = None
    crashes: int = 0
    last_crash: Crash | None = None
    gave_up: bool = False

    def resting(self, now: float) -> float:
        """For how many seconds nobody should try again."""
        if not self.gave_up or self.last_crash is None:
            return 0.0
        return min(REST_SECONDS, max(0.0, self.last_crash.at + REST_SECONDS - now))


def read_notes(directory: Path) -> Notes | None:
    """What the last warden of an installation noted; None when there are no notes, or they are damaged."""
    try:
        document = files.read_json(directory / NOTES)
        return typed(Notes, document) if document is not None else None
    except (StateError, ValueError):
        return None
