"""One installation without an account under test: manage_pod.py on a private directory, for any backend but RunPod."""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.support import procfs
from tests.support.net import free_port
from tests.support.process import PYTHON, Finished, run
from tests.support.source import ROOT
from tests.support.wait import eventually

MODEL = "org/tiny-chat"


@dataclass
class Desk:
    """One installation without an account: manage_pod.py on a private directory. ``start``: as for Install."""

    directory: Path
    env: Mapping[str, str]
    port: int = field(default_factory=free_port)
    model_port: int = field(default_factory=free_port)
    start: Callable[..., Finished] = run

    def write(self, command: list[str], **changes: object) -> None:
        section = {"command": command, "cwd": str(ROOT), "stop_seconds": 5}
        self.configure("process", section, **changes)

    def configure(self, backend: str, section: Mapping[str, object], **changes: object) -> None:
        config = {
            "model": MODEL,
            "backend": backend,
            backend: section,
            "proxy_port": self.port,
            "cache_dir": "cache",
            "restart_backoff_seconds": 0,
        }
        text = json.dumps({**config, **changes})
        (self.directory / "pod_config.json").write_text(text, encoding="utf-8")

    def manage(self, *arguments: str) -> Finished:
        config = str(self.directory / "pod_config.json")
        argv = [PYTHON, str(ROOT / "manage_pod.py"), "--config", config, *arguments]
        return self.start(argv, env=self.env, within=90)

    def state(self) -> dict[str, Any]:
        """What pod_state.json says of the model."""
        document = json.loads((self.directory / "pod_state.json").read_text(encoding="utf-8"))
        record: dict[str, Any] = document["models"]["default"]
        return record

    def order(self) -> dict[str, Any]:
        """The model's order, as `status` shows it."""
        order: dict[str, Any] = json.loads(self.manage("status", "--json").expect().out)["models"]["default"][
            "order"
        ]
        return order

    def passes_until(self, phase: str, *, within: float = 60) -> dict[str, Any]:
        """Passes as cron runs them, for at most so many seconds."""

        def done() -> dict[str, Any]:
            self.manage("--no-proxy")
            record = self.state()
            return record if record["phase"] == phase else {}

        return eventually(done, within=within, every=0.1)

    def ask(self, model: str = MODEL) -> dict[str, Any]:
        """One answer through the proxy."""
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        answer = requests.post(url, json=body, timeout=30)
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document

    def starts(self, expected: int) -> Counter[str]:
        """How often a machine of each model was made ready; the last is written down a moment after its answer."""
        path = self.directory / ".llmpod" / "pod_state" / "starts.jsonl"

        def written() -> list[str]:
            return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

        with suppress(AssertionError):
            eventually(lambda: len(written()) >= expected, within=10)
        return Counter(json.loads(line)["model"] for line in written())

    def servers(self) -> list[procfs.Process]:
        """The processes of this installation, its proxy not among them."""
        everyone = procfs.descendants(os.getpid())
        return [p for p in everyone if str(self.directory) in p.command or "sim.vllm" in p.command]
