"""Not a container of ours: one that a person or a compose file has made, started and stopped by its name.

It is never created or removed. That it is used is noted in a directory of ours; what it does is the engine's word.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from llmpod.backends.docker import STOP_MARGIN_SECONDS, ending, tail
from llmpod.backends.docker_api import Cut, Engine, container
from llmpod.backends.local_port import HOST
from llmpod.backends.machines import Machines
from llmpod.config import DockerSection
from llmpod.errors import BadSpec, CreateUnknown, ProviderUnavailable
from llmpod.model import Instance, Listing, Observed, Offer, Spec


class ExistingContainer:
    """One container, by name.

    Args:
        section: names it and the port on which it is reached.
        engine: the engine.
        machines: where the use of it is noted.
        clock: epoch seconds.
    """

    def __init__(
        self,
        section: DockerSection,
        engine: Engine,
        machines: Machines,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = str(section.container)
        self._port = section.port
        self._section = section
        self._engine = engine
        self._machines = machines
        self._clock = clock

    def list(self, expect: Collection[str]) -> Listing:  # noqa: ARG002 - an engine's word does not lag
        used = [name for name in self._machines.names() if not self._machines.has_ended(name)]
        state = self._state() if used else ""
        return Listing(tuple(self._instance(name, state) for name in used), self._clock())

    def create(
        self,
        spec: Spec,
        offer: Offer,  # noqa: ARG002 - there is one container
        name: str,
        env: Mapping[str, str],  # noqa: ARG002 - its environment is its maker's
        *,
        deadline: float,  # noqa: ARG002 - it goes on without us
    ) -> Instance:
        self._machines.tidy(())
        self.inspect()
        self._machines.begin(name, {"digest": spec.digest, "created_at": self._clock()})
        try:
            answer = self._engine.ask("POST", container(self._name, "/start"))
        except Cut as e:
            raise CreateUnknown(e.message) from None
        if answer.status not in (204, 304):
            self._machines.end(name)
            raise ProviderUnavailable(f"{self._name} does not start: {answer.message}", retry_after=30)
        return self._instance(name, "running")

    def destroy(self, instance_id: str) -> bool:
        if instance_id not in self._machines.names():
            return False
        patience = int(self._section.stop_seconds)
        if self._state() == "missing":
            return self._machines.end(instance_id)
        answer = self._engine.ask(
            "POST",
            container(self._name, "/stop"),
            {"t": patience},
            seconds=patience + STOP_MARGIN_SECONDS,
        )
        if answer.status not in (204, 304, 404):
            raise ProviderUnavailable(f"{self._name} does not stop: {answer.message}")
        return self._machines.end(instance_id)

    def tail(self, instance_id: str, lines: int) -> Sequence[str]:  # noqa: ARG002 - there is one container
        """The last lines of its output, oldest first."""
        return tail(self._engine, self._name, lines)

    def close(self) -> None:
        """Connections last for one request."""

    def inspect(self) -> Mapping[str, Any]:
        """All that the engine knows of it.

        Where nothing has that name, the engine takes it for the beginning of an id: another's container is none.

        Raises:
            BadSpec: there is no such container.
            ProviderError: it cannot be told.
        """
        answer = self._engine.ask("GET", container(self._name, "/json"))
        found = answer.document
        named = isinstance(found, dict) and str(found.get("Name")).lstrip("/") == self._name
        if answer.status == 404 or (answer.status == 200 and not named):
            raise BadSpec(
                f"There is no container {self._name!r}.", hint="Create it (`docker compose up --no-start`)."
            )
        if answer.status != 200 or not isinstance(found, dict):
            raise ProviderUnavailable(f"The engine does not tell of {self._name}: {answer.message}")
        return found

    def _state(self) -> str:
        """The engine's word; ``missing`` where there is none."""
        try:
            found = self.inspect()
        except BadSpec:
            return "missing"
        return str((found.get("State") or {}).get("Status") or "").lower()

    def _instance(self, name: str, state: str) -> Instance:
        order, running = self._machines.order(name), state == "running"
        return Instance(
            id=name,
            name=name,
            observed=Observed.RUNNING if running else Observed.EXITED,
            usd_per_hour=0.0,
            base_url=f"http://{HOST}:{self._port}",
            container_up=running,
            created_at=order.get("created_at"),
            gpu=f"container {self._name}",
            detail="" if running else ending(self._engine, self._name, state),
            digest=str(order.get("digest") or ""),
            key_optional=not self._section.require_key,
            ping_path=self._section.ping_path or "",
        )
