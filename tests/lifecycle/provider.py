"""What a world needs of a provider, whatever it sells: machines that live and die, faults to order, its own truth.

Each backend has one: in memory, below the real backend, at the place where that talks to the outside.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from llmpod.backends import Backend
from llmpod.model import Health, Instance, Observed, Phase
from llmpod.secret import Secret

MAX_LAG = 40.0
Clock = Callable[[], float]


@dataclass(frozen=True)
class Faults:
    """What can go wrong with a provider: names that it knows, for each kind of call.

    Args:
        moves: its machines may go on elsewhere under other ids.
        renames: people may give them other names.
        observed: what may become of a machine; None: it vanishes.
    """

    create: tuple[str, ...] = ()
    list: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()
    moves: bool = False
    renames: bool = False
    observed: tuple[Observed | None, ...] = (Observed.EXITED, Observed.BROKEN, None)


@dataclass
class Provider(ABC):
    """A provider in memory, also as the model servers on its machines (the prober asks it).

    Args:
        clock: the true time, epoch seconds.
        create_faults: one for each of the next calls, as are the others; an empty one is none.
        lag: seconds until a new machine is listed.
        delete_lag: seconds for which one goes on after its end was ordered.
        load_seconds: from its start to its first answer.
    """

    clock: Clock
    create_faults: list[str] = field(default_factory=list)
    list_faults: list[str] = field(default_factory=list)
    delete_faults: list[str] = field(default_factory=list)
    lag: float = 0.0
    delete_lag: float = 0.0
    load_seconds: float = 60.0
    faults: ClassVar[Faults] = Faults()

    @classmethod
    @abstractmethod
    def made(cls, clock: Clock, directory: Path) -> "Provider":
        """A new one: the true time, and a directory for files of the installation."""

    @property
    @abstractmethod
    def backend(self) -> Backend:
        """The backend under test, which talks to this provider."""

    @abstractmethod
    def alive(self) -> list[str]:
        """The ids of the machines that run (or cost) now, whatever anybody lists."""

    @abstractmethod
    def is_ready(self, instance_id: str) -> bool:
        """Whether the model server of a machine answers."""

    @abstractmethod
    def become(self, observed: Observed) -> None:
        """What runs comes to that."""

    @abstractmethod
    def lose(self) -> None:
        """What runs vanishes."""

    def move(self) -> None:  # noqa: B027 - most cannot
        """What runs goes on under other ids."""

    def rename(self) -> None:  # noqa: B027 - most cannot
        """People give what runs other names."""

    def renamed(self) -> bool:
        """Whether something lives that does not bear our mark any more."""
        return False

    def check(self, seen: Instance, api_key: Secret | None, served_name: str, *, was_ready: bool) -> Health:
        """As the prober does."""
        return Health(Phase.READY) if self.is_ready(seen.id) else Health(Phase.BOOTING, "no answer")

    def calm(self) -> None:
        """No more faults."""
        self.create_faults, self.list_faults, self.delete_faults = [], [], []

    def create_fault(self) -> str:
        return self.create_faults.pop(0) if self.create_faults else ""

    def list_fault(self) -> str:
        return self.list_faults.pop(0) if self.list_faults else ""

    def delete_fault(self) -> str:
        return self.delete_faults.pop(0) if self.delete_faults else ""
