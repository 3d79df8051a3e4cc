"""A container engine in memory: answers that are lost, containers that crash, starts that fail, removals that hang."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpod.backends import Backend
from llmpod.backends.docker import MACHINE, Containers
from llmpod.backends.docker_api import Answer, Cut, Engine
from llmpod.backends.docker_existing import ExistingContainer
from llmpod.backends.machines import Machines
from llmpod.config import DockerSection
from llmpod.errors import ProviderUnavailable
from llmpod.model import Observed
from tests.lifecycle.provider import Clock, Faults, Provider


@dataclass
class Box:
    """One container."""

    name: str
    labels: Mapping[str, str]
    born: float
    state: str = "created"
    ready_at: float = 0.0


@dataclass
class Boxes(Provider):
    """The containers of one engine."""

    boxes: dict[str, Box] = field(default_factory=dict)
    count: int = 0
    faults = Faults(
        create=("away", "no image", "500-made", "500-not-made", "cut-made", "no start", "start-cut", "stays"),
        list=("away", "cut", "500"),
        delete=("away", "cut", "stop-cut", "500"),
    )

    @classmethod
    def made(cls, clock: Clock, _directory: Path) -> "Boxes":
        return cls(clock)

    @property
    def backend(self) -> Backend:
        return Containers(DockerSection(image="vllm/vllm-openai"), FakeEngine(self), clock=self.clock)

    def alive(self) -> list[str]:
        return [i for i, box in self.boxes.items() if box.state in ("running", "paused")]

    def is_ready(self, instance_id: str) -> bool:
        box = self.boxes.get(instance_id)
        return box is not None and box.state == "running" and self.clock() >= box.ready_at

    def become(self, observed: Observed) -> None:
        for i in self.alive():
            self.boxes[i].state = {Observed.EXITED: "exited", Observed.BROKEN: "dead"}.get(
                observed, "running"
            )

    def lose(self) -> None:
        for i in self.alive():
            del self.boxes[i]

    def find(self, ref: str) -> str:
        """The id of a container, given by id or name; empty when there is none."""
        return next((i for i, box in self.boxes.items() if ref in (i, box.name)), "")


@dataclass
class Named(Boxes):
    """One container of a compose file; ours is only the note that it is used."""

    directory: Path = Path()
    faults = Faults(
        create=("away", "no start", "start-cut"),
        list=("away", "cut", "500"),
        delete=("away", "stop-cut", "500"),
        observed=(Observed.EXITED,),
    )

    @classmethod
    def made(cls, clock: Clock, directory: Path) -> "Named":
        return cls(clock, boxes={"c0": Box("coder", {}, 0.0, "exited")}, directory=directory)

    @property
    def backend(self) -> Backend:
        section = DockerSection(container="coder", port=8001)
        machines = Machines(self.directory / "machines")
        return ExistingContainer(section, FakeEngine(self), machines, clock=self.clock)

    def is_ready(self, instance_id: str) -> bool:
        return super().is_ready("c0")


class FakeEngine(Engine):
    """The engine, as a backend meets it."""

    def __init__(self, world: Boxes) -> None:
        super().__init__(Path("/nowhere"))
        self._world = world

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        seconds: float = 30.0,
    ) -> Answer:
        _, _, ref, *what = path.split("/")
        if method == "GET":
            return self._look(ref, what)
        if path == "/containers/create":
            assert body is not None
            assert query is not None
            return self._create(str(query["name"]), body)
        if what == ["start"]:
            return self._start(self._world.find(ref))
        return self._end(self._world.find(ref), stop=what == ["stop"])

    def _look(self, ref: str, what: list[str]) -> Answer:
        world, fault = self._world, self._world.list_fault()
        _refuse(fault)
        if fault == "500":
            return _answer(500, {"message": "server error"})
        if ref == "json":
            return _answer(200, [_listed(i, box) for i, box in world.boxes.items() if MACHINE in box.labels])
        found = world.find(ref)
        if not found:
            return _answer(404, {"message": "no such container"})
        box = world.boxes[found]
        shown = {"Name": f"/{box.name}", "State": {"Status": box.state}}
        return Answer(200, b"") if what == ["logs"] else _answer(200, shown)

    def _create(self, name: str, body: Mapping[str, Any]) -> Answer:
        world, fault = self._world, self._world.create_fault()
        if fault == "away":
            raise ProviderUnavailable("refused")
        if fault == "no image":
            return _answer(404, {"message": "No such image"})
        if fault == "500-not-made":
            return _answer(500, {"message": "oops"})
        assert not world.find(name), "a name was used twice"
        world.count += 1
        world.boxes[f"c{world.count}"] = Box(name, body["Labels"], world.clock())
        if fault == "cut-made":
            raise Cut("reset")
        if fault == "500-made":
            return _answer(500, {"message": "after it was made"})
        if fault in ("no start", "start-cut", "stays"):
            world.create_faults.insert(0, fault)
        return _answer(201, {"Id": f"c{world.count}"})

    def _start(self, found: str) -> Answer:
        world, fault = self._world, self._world.create_fault()
        if fault == "no start":
            return _answer(500, {"message": "port is already allocated"})
        if fault == "stays":
            world.delete_faults.insert(0, "500")
            return _answer(500, {"message": "could not select device driver"})
        world.boxes[found].state = "running"
        world.boxes[found].ready_at = world.clock() + world.load_seconds
        if fault == "start-cut":
            raise Cut("reset")
        return Answer(204, b"")

    def _end(self, found: str, *, stop: bool) -> Answer:
        world, fault = self._world, self._world.delete_fault()
        if fault == "away":
            raise ProviderUnavailable("refused")
        if not found:
            return _answer(404, {"message": "no such container"})
        if fault == "500":
            return _answer(500, {"message": "busy"})
        world.boxes[found].state = "exited"
        if not stop:
            del world.boxes[found]
        if fault in ("cut", "stop-cut"):
            raise Cut("reset")
        return Answer(204, b"")


def _refuse(fault: str) -> None:
    if fault == "away":
        raise ProviderUnavailable("refused")
    if fault == "cut":
        raise Cut("reset")


def _answer(status: int, document: object) -> Answer:
    return Answer(status, json.dumps(document).encode())


def _listed(container_id: str, box: Box) -> dict[str, object]:
    return {"Id": container_id, "Labels": box.labels, "State": box.state, "Created": int(box.born)}
