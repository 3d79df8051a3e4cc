"""The backend `process` through the front door: configuration, passes, an answer through the proxy, `--shutdown`."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support import procfs
from tests.support.net import free_port, listens
from tests.support.process import PYTHON, Finished, run
from tests.support.source import ROOT
from tests.support.wait import eventually

MODEL = "org/tiny-chat"
SERVER = [sys.executable, "-m", "llmpod.sim.vllm", "--model", MODEL]


@dataclass
class Desk:
    """One installation without an account: manage_pod.py on a private directory."""

    directory: Path
    env: Mapping[str, str]
    port: int = field(default_factory=free_port)

    def write(self, command: list[str], **changes: object) -> None:
        section = {"command": command, "cwd": str(ROOT), "stop_seconds": 5}
        config = {
            "model": MODEL,
            "backend": "process",
            "process": section,
            "proxy_port": self.port,
            "cache_dir": "cache",
            "restart_backoff_seconds": 0,
        }
        text = json.dumps({**config, **changes})
        (self.directory / "pod_config.json").write_text(text, encoding="utf-8")

    def manage(self, *arguments: str) -> Finished:
        config = str(self.directory / "pod_config.json")
        argv = [PYTHON, str(ROOT / "manage_pod.py"), "--config", config, *arguments]
        return run(argv, env=self.env, within=90)

    def state(self) -> dict[str, Any]:
        """What pod_state.json says of the model."""
        document = json.loads((self.directory / "pod_state.json").read_text(encoding="utf-8"))
        record: dict[str, Any] = document["models"]["default"]
        return record

    def passes_until(self, phase: str) -> dict[str, Any]:
        """Passes as cron runs them."""

        def done() -> dict[str, Any]:
            self.manage("--no-proxy")
            record = self.state()
            return record if record["phase"] == phase else {}

        return eventually(done, within=60, every=0.1)

    def ask(self) -> dict[str, Any]:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        answer = requests.post(url, json=body, timeout=30)
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document

    def servers(self) -> list[procfs.Process]:
        """The processes of this installation, its proxy not among them."""
        everyone = procfs.descendants(os.getpid())
        return [p for p in everyone if str(self.directory) in p.command or "sim.vllm" in p.command]


@pytest.fixture
def desk(state_dir: Path, env: dict[str, str]) -> Iterator[Desk]:
    made = Desk(state_dir, env)
    yield made
    made.manage("--shutdown").expect()


def test_a_local_command_answers_through_the_proxy_and_ends_with_shutdown(desk: Desk) -> None:
    desk.write(SERVER)
    desk.manage().expect()
    status = desk.passes_until("ready")
    assert status["usd_per_hour"] == 0
    eventually(lambda: listens(desk.port), within=20)
    answer = eventually(desk.ask, within=20, ignoring=requests.RequestException)
    assert answer["choices"][0]["message"]["content"]
    assert status["instance_id"] in desk.manage("status").expect().out
    assert "http://127.0.0.1" in desk.manage("logs").expect().out, "the server's own first line"
    assert "down" in desk.manage("--shutdown").expect().out
    assert desk.state()["phase"] == "stopped"
    assert not listens(desk.port)
    eventually(lambda: not desk.servers(), within=10)


def test_a_command_that_crashes_is_started_again_and_then_given_up_with_its_last_words(desk: Desk) -> None:
    desk.write([sys.executable, "-c", "import sys; print('no such model here'); sys.exit(4)"], max_restarts=1)
    status = desk.passes_until("failed")
    assert "exit code 4" in status["error"]
    assert "no such model here" in status["error"]
    assert status["attempts"] == 2
    assert "no such model here" in desk.manage("logs").out


def test_a_changed_command_replaces_the_server_and_a_missing_one_says_so(desk: Desk) -> None:
    desk.write(SERVER)
    first = desk.passes_until("ready")["instance_id"]
    desk.write([*SERVER, "--max-model-len", "512"])
    eventually(lambda: desk.passes_until("ready")["instance_id"] != first, within=60)
    assert len([p for p in desk.servers() if "sim.vllm" in p.command and "warden" not in p.command]) == 1
    desk.write(["no-such-program"])
    assert "no-such-program" in desk.passes_until("failed")["error"]


def test_a_killed_server_is_started_again(desk: Desk) -> None:
    desk.write(SERVER)
    first = desk.passes_until("ready")["instance_id"]
    for process in desk.servers():
        process.kill()
    eventually(lambda: desk.passes_until("ready")["instance_id"] != first, within=60)


def test_what_does_not_apply_is_said_and_needs_no_key(desk: Desk) -> None:
    desk.write(SERVER)
    assert "nothing to pay" in desk.manage("plan").expect().out
    assert "nothing to pay" in desk.manage("--dry-run").expect().out
    assert desk.servers() == []
    assert "no catalog" in desk.manage("--refresh-catalog").expect().out
    assert "no bill" in desk.manage("cost").expect().out
    doctor = desk.manage("doctor").out
    assert "process needs none" in doctor
    assert "RunPod" not in doctor
    assert "0 terminated" in desk.manage("panic").expect().out


def test_shutdown_works_with_a_broken_configuration(desk: Desk) -> None:
    desk.write(SERVER)
    desk.passes_until("ready")
    path = desk.directory / "pod_config.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    desk.manage("--shutdown").expect()
    eventually(lambda: not desk.servers(), within=10)
    path.write_text(text)
