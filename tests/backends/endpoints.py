"""An installation of the backend `runpod_serverless` in this process, whose RunPod is the simulator."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from llmpod import config as configuration
from llmpod.cli.wiring import Plane, open_plane
from llmpod.lifecycle.report import Report
from llmpod.model import Direction, Phase, Record
from llmpod.secret import Secret
from llmpod.sim.launch import Simulator
from tests.support.wait import eventually

MODEL = "org/tiny-chat"
MODELS = "/openai/v1/models"


@dataclass
class Site:
    """An installation in this process, and its endpoint in the simulator."""

    sim: Simulator
    directory: Path
    plane: Plane
    id: str
    model: str = "default"

    def pass_(self) -> Report:
        return self.plane.run_pass()

    @property
    def record(self) -> Record:
        return self.plane.store.load().record(self.model)

    def order(self, direction: Direction) -> None:
        self.plane.order(direction, by="a test", reason="", proxy=False, models=[self.model])

    def until(self, done: Callable[[], bool]) -> None:
        """Passes until that is so."""

        def passed() -> bool:
            self.pass_()
            return done()

        eventually(passed, within=30)

    def until_phase(self, phase: Phase) -> None:
        self.until(lambda: self.record.phase is phase)

    def behave(self, **options: object) -> None:
        self.sim.endpoint(id=self.id, **options)

    @property
    def seen(self) -> dict[str, Any]:
        """The endpoint, behind the scenes."""
        found: dict[str, Any] = next(one for one in self.sim.state()["endpoints"] if one["id"] == self.id)
        return found

    @property
    def limits(self) -> tuple[int, int]:
        return self.seen["min"], self.seen["max"]

    def calls(self, path: str, method: str = "GET") -> int:
        return sum(c["path"].endswith(path) and c["method"] == method for c in self.sim.requests())

    def console(self, most: int) -> None:
        """A person sets its limit past llmpod."""
        headers = {"Authorization": f"Bearer {self.sim.key}", "User-Agent": "a-person"}
        body = {"workers": {"min": 0, "max": most}}
        url = f"{self.sim.api_url}/v2/serverless/{self.id}"
        requests.patch(url, json=body, headers=headers, timeout=10).raise_for_status()

    def sleeps(self) -> None:
        """Its workers end for want of work."""
        self.sim.advance(31.0)
        eventually(lambda: self.seen["list"] == [], within=10)


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator.start(pods="inline") as simulator:
        yield simulator


Opened = Callable[..., Site]


@pytest.fixture
def opened(sim: Simulator, state_dir: Path, env: dict[str, str]) -> Iterator[Opened]:
    """Opens the installation, with a key for the endpoint's file and changes to its section."""
    planes = []
    sim.reset()

    def open_(key: str = "", **section: object) -> Site:
        endpoint = sim.endpoint(model=MODEL, idle_seconds=30.0, cold_start_seconds=0.1)
        file = state_dir / "endpoint_key"
        file.write_text(key or endpoint["key"], encoding="utf-8")
        file.chmod(0o600)
        raw = {
            "model": MODEL,
            "backend": "runpod_serverless",
            "runpod_serverless": {"endpoint_id": endpoint["id"], "api_key_file": "endpoint_key", **section},
            "runpod_api_url": sim.api_url,
            "create_grace_seconds": 0.5,
            "restart_backoff_seconds": 0,
        }
        config = configuration.parse(raw, path=state_dir / "pod_config.json", environ={})
        opening = open_plane(config, Secret(sim.key, "a test"), environ=env, with_proxy=False)
        planes.append(opening)
        return Site(sim, state_dir, opening.__enter__(), endpoint["id"])

    yield open_
    for plane in planes:
        plane.__exit__(None, None, None)


@pytest.fixture
def site(opened: Opened) -> Site:
    return opened()
