"""Not a health check: remembers, per server, how often connecting failed in a row, and when to try again. Pure.

After :data:`FAILURES` failures in a row nobody is made to wait for the next one: requests are refused at once, with
the time until somebody may try. That one is the probe; its success ends the trouble, its failure begins another
pause. A pause is short, and all is forgotten when the state file tells of a change, so that a server that has just
become ready is not locked out.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Final

from llmpod.errors import LlmpodError
from llmpod.proxy.origin import Origin

FAILURES: Final = 5  # in a row (reliability-security.md, F1)
PAUSE_SECONDS: Final = 2.0


class UpstreamDown(LlmpodError):
    """The model server could not be reached several times in a row, and it is too early to try again."""

    status: ClassVar[int] = 503
    type: ClassVar[str] = "upstream_error"
    code: ClassVar[str] = "upstream_down"


@dataclass(slots=True)
class _Trouble:
    """Of one server. ``until``: when the next attempt may begin, or the one under way will have ended."""

    failures: int = 0
    until: float = 0.0


class Breaker:
    """One for all servers. Costs nothing while there is no trouble.

    Args:
        probe_seconds: how long an attempt to connect may take.
    """

    def __init__(self, *, probe_seconds: float) -> None:
        self.probe_seconds = probe_seconds
        self._troubles: dict[Origin, _Trouble] = {}

    def refusal(self, origin: Origin, now: float) -> UpstreamDown | None:
        """Why nobody may connect now; None: connect, and tell how it went. ``now`` is monotonic, in seconds."""
        if not self.is_open(origin):
            return None
        trouble = self._troubles[origin]
        if not self.refuses(origin, now):  # this one is the probe; whoever comes while it lasts is refused
            trouble.until = now + self.probe_seconds
            return None
        wait = max(1, math.ceil(trouble.until - now))
        return UpstreamDown(
            f"The model server ({origin}) could not be reached {trouble.failures} times in a row.",
            hint=f"It is tried again in {wait} s.",
            retry_after=wait,
        )

    def is_open(self, origin: Origin) -> bool:
        """Whether it could not be reached so often that it counts as gone."""
        trouble = self._troubles.get(origin)
        return trouble is not None and trouble.failures >= FAILURES

    def refuses(self, origin: Origin, now: float) -> bool:
        """Whether a request would be refused now."""
        return self.is_open(origin) and now < self._troubles[origin].until

    def failed(self, origin: Origin, now: float) -> None:
        """Connecting did not work."""
        trouble = self._troubles.setdefault(origin, _Trouble())
        trouble.failures += 1
        trouble.until = now + PAUSE_SECONDS

    def worked(self, origin: Origin) -> None:
        """A connection is there."""
        if self._troubles:
            self._troubles.pop(origin, None)

    def forget(self) -> None:
        """Something is new: everybody may try."""
        self._troubles.clear()
