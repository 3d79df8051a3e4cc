"""One installation under test: a private directory with a configuration, and manage_pod.py run on it for real."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from llmpod.sim.launch import Simulator
from tests.support import procfs
from tests.support.canaries import Canaries
from tests.support.net import free_port
from tests.support.pages import pages, pod_keys
from tests.support.process import PYTHON, Finished, run
from tests.support.source import ROOT
from tests.support.wait import eventually

FAST: Mapping[str, object] = {
    "container_seconds": 0.0,
    "load_seconds": 0.0,
    "first_token_seconds": 0.0,
    "tokens_per_second": 0.0,
}


@dataclass
class Install:
    """The files of one user, and the simulator that is their RunPod.

    ``start`` runs manage_pod.py: as a new process, or as a fork of a warm one (forks.py).
    """

    directory: Path
    sim: Simulator
    env: Mapping[str, str]
    config: dict[str, Any] = field(default_factory=dict)
    proxy: bool = False
    start: Callable[..., Finished] = run

    def __post_init__(self) -> None:
        self.port = free_port()
        self.write(
            model="org/tiny-chat",
            gpu_type_id=["NVIDIA L4", "NVIDIA A40"],
            runpod_api_url=self.sim.api_url,
            hub_url=self.sim.hub_url,
            runpod_proxy_url=self.sim.proxy_url,
            proxy_port=self.port,
            cache_dir="cache",
            create_grace_seconds=2.0,
            poll_interval_seconds=0.1,
            initial_wait_seconds=0,
            restart_backoff_seconds=0,
        )

    @property
    def path(self) -> Path:
        return self.directory / "pod_config.json"

    def write(self, **changes: object) -> None:
        """Change the configuration; None removes a key."""
        merged = {**self.config, **changes}
        self.config = {key: value for key, value in merged.items() if value is not None}
        self.path.write_text(json.dumps(self.config), encoding="utf-8")

    def argv(self, *arguments: str) -> list[str]:
        base = [PYTHON, str(ROOT / "manage_pod.py"), "--config", str(self.path)]
        return [*base, *([] if self.proxy else ["--no-proxy"]), *arguments]

    @property
    def environ(self) -> dict[str, str]:
        return {**self.env, "RUNPOD_API_KEY": self.sim.key}

    def manage(self, *arguments: str, within: float = 60.0) -> Finished:
        """One call of manage_pod.py, as cron would do it (no terminal)."""
        done = self.start(self.argv(*arguments), env=self.environ, within=within)
        seen = Canaries({"cloud key": self.sim.key}).seen_in(done.out + done.err)
        assert not seen, f"the {seen} in what {arguments} said: {done.out}{done.err}"
        return done

    def sightings(self) -> list[str]:
        """Where a secret of this installation is, though it should not be (G20)."""
        state_file = self.directory / "pod_state.json"
        secrets = Canaries({"cloud key": self.sim.key}).plus(**pod_keys(state_file))
        own = self.directory / ".llmpod"
        roots = [path for path in self.directory.rglob("*") if path.name != "install.key" and path.is_file()]
        marks = f"LLMPOD_STATE={state_file}".encode()
        found = secrets.sightings(pages(self.port) if self.proxy else {}, *roots)
        for process in procfs.descendants(os.getpid()) if own.exists() and procfs.available() else ():
            with suppress(OSError):
                if marks in (procfs.PROC / str(process.pid) / "environ").read_bytes():
                    found += secrets.sightings({}, pid=process.pid, parent=True)
        return found

    def passes_until(self, phase: str, *, within: float = 60.0) -> dict[str, Any]:
        """Passes until the model is in that phase; its status. ``within``: seconds, for graces are some."""

        def there() -> dict[str, Any]:
            self.manage()
            status = self.status()
            return status if status["phase"] == phase else {}

        return eventually(there, within=within)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.manage("status", "--json").expect().out)
        model: dict[str, Any] = document["models"]["default"]
        return model

    @property
    def install_id(self) -> str:
        """What every pod name of this installation carries."""
        document = json.loads((self.directory / "pod_state.json").read_text(encoding="utf-8"))
        return str(document["install_id"])

    def console(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A call to the provider's API past llmpod, as a person makes one in the console."""
        answer = requests.request(
            method,
            self.sim.api_url + path,
            json=body,
            headers={"Authorization": f"Bearer {self.sim.key}", "User-Agent": "a-person"},
            timeout=10,
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    def state(self) -> dict[str, Any]:
        """What pod_state.json says of the model."""
        document = json.loads((self.directory / "pod_state.json").read_text(encoding="utf-8"))
        record: dict[str, Any] = document["models"]["default"]
        return record
