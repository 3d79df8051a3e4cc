"""Not a buffer: how much memory the bodies of all requests may take together, and who goes when that is too much.

A body counts from its first bytes until its request is answered. Where there is no room for more, the one goes that
has been coming for longest: it is slower than those that came and went meanwhile, so nobody can keep the others out by
holding what he does not finish. When all that is there waits for answers, the newcomer goes.
"""

from typing import Final, Protocol

from llmpod.config import ProxySettings
from llmpod.errors import Overloaded

FREE: Final = (
    16 * 2**10
)  # bytes of each body that nobody counts: most requests, and 64 MiB for 4,096 connections


def room_bytes(settings: ProxySettings) -> int:
    """How many there may be: one request finds room in any case."""
    return max(settings.max_bodies_bytes, settings.max_body_bytes)


def no_room() -> Overloaded:
    """What the one hears who has to go."""
    return Overloaded("There is no memory for more requests of this size now.", retry_after=1)


class Guest(Protocol):
    """A connection whose request has a body."""

    def crowded_out(self) -> None:
        """There is no room for the body under way: refuse it, and keep nothing of it."""


class Room:
    """Who keeps how many bytes.

    Args:
        most: bytes altogether; may be changed.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._sizes: dict[Guest, int] = {}
        self._coming: dict[Guest, None] = {}  # in the order of their first bytes
        self.used = 0

    @property
    def guests(self) -> int:
        """How many keep something."""
        return len(self._sizes)

    def take(self, guest: Guest, size: int) -> bool:
        """So many bytes more; whether there is room for them, made by sending others away if need be."""
        self.used += size
        self._sizes[guest] = self._sizes.get(guest, 0) + size
        self._coming.setdefault(guest)
        while self.used > self.most:
            oldest = next(iter(self._coming))
            self.free(oldest)
            if oldest is guest:
                return False
            oldest.crowded_out()
        return True

    def arrived(self, guest: Guest) -> None:
        """Its body is whole; what it keeps, it keeps until it is answered."""
        self._coming.pop(guest, None)

    def free(self, guest: Guest, *, but: int = 0) -> None:
        """It keeps nothing any more, ``but`` so many bytes of a next body."""
        kept = self._sizes.pop(guest, None)
        if kept is None:
            return
        self.used -= kept
        if but > FREE:
            self._sizes[guest] = but
            self.used += but
        else:
            self._coming.pop(guest, None)
