"""Real container engines: Docker's, and podman's compatible socket. One suite for both."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from llmpod.backends.docker import Containers
from llmpod.backends.docker_api import Engine
from llmpod.backends.docker_existing import ExistingContainer
from llmpod.backends.machines import Machines
from llmpod.config import DockerSection
from llmpod.errors import BadSpec, CreateUnknown
from llmpod.model import Offer, Spec
from tests.support import dockerd, podman
from tests.support.desk import MODEL, Desk
from tests.support.forks import Forks
from tests.support.net import listens
from tests.support.real_servers import llama, why_not_llama
from tests.support.source import ROOT
from tests.support.wait import eventually

pytestmark = pytest.mark.component

ENGINES = {"dockerd": (dockerd.dockerd, dockerd.why_not), "podman": (podman.podman, podman.why_not)}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Path]:
    run, why_not = ENGINES[request.param]
    if reason := why_not():
        pytest.skip(f"no {request.param}: {reason}")
    with run() as path:
        yield path


@pytest.fixture
def desk(state_dir: Path, env: dict[str, str], engine: Path, forks: Forks) -> Iterator[Desk]:
    made = Desk(state_dir, env, start=forks.run)
    yield made
    made.manage("--shutdown").expect()


def section(engine: Path, *command: str, **more: object) -> dict[str, object]:
    """A container that sees this machine's Python and this repository, and nothing else."""
    places = dict.fromkeys(["/usr", "/lib", "/lib64", sys.prefix, sys.base_prefix, str(ROOT.resolve())])
    return {
        "socket": str(engine),
        "image": dockerd.IMAGE,
        "network": "host",
        "entrypoint": [sys.executable],
        "command": list(command),
        "mounts": [f"{Path(place).resolve()}:{place}:ro" for place in places if Path(place).exists()],
        "env": {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        "stop_seconds": 5,
        **more,
    }


def containers(engine: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dockerd.ask(engine, "GET", "/containers/json?all=1")[1])
    return found


def test_a_model_server_in_a_real_container_answers_through_the_proxy(desk: Desk, engine: Path) -> None:
    desk.configure("docker", section(engine, "-m", "llmpod.sim.vllm", "--model", MODEL))
    desk.manage().expect()
    desk.passes_until("ready")
    eventually(lambda: listens(desk.port), within=20)
    assert eventually(desk.ask, within=20, ignoring=requests.RequestException)["choices"]
    assert "http://127.0.0.1" in desk.manage("logs").expect().out
    (box,) = containers(engine)
    assert box["Labels"]["llmpod.machine"] == box["Names"][0].lstrip("/")
    desk.manage("--shutdown").expect()
    assert containers(engine) == []


@pytest.mark.skipif(bool(why_not_llama()), reason=why_not_llama())
def test_a_real_model_server_in_a_real_container_answers_through_the_proxy(desk: Desk, engine: Path) -> None:
    python, *words = llama(desk.directory).command
    shape = section(engine, *words, entrypoint=[python], require_key=True)
    mounts = shape["mounts"]
    assert isinstance(mounts, list)
    desk.configure("docker", {**shape, "mounts": [*mounts, f"{desk.directory}:{desk.directory}:ro"]})
    desk.manage().expect()
    desk.passes_until("ready")
    eventually(lambda: listens(desk.port), within=20)
    answer = eventually(desk.ask, within=30, ignoring=requests.RequestException)
    ended, tokens = answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]
    # random weights and sampled: its own end may come before the limit, but not before a token
    assert (ended == "length" and tokens == 8) or (ended == "stop" and 1 <= tokens <= 8), answer


def test_a_real_container_that_crashes_says_why(desk: Desk, engine: Path) -> None:
    crash = section(engine, "-c", "import sys; print('no weights here'); sys.exit(5)")
    desk.configure("docker", crash, max_restarts=0)
    error = desk.passes_until("failed")["error"]
    assert "exit code 5" in error
    assert "no weights here" in error
    assert containers(engine) == []


def test_real_refusals(desk: Desk, engine: Path) -> None:
    desk.configure("docker", section(engine, image="no/such:1"))
    assert "docker pull no/such:1" in desk.passes_until("failed")["error"]
    desk.configure("docker", section(engine, "-c", "pass", gpus="all"))
    error = desk.passes_until("failed")["error"]
    assert "device driver" in error or "without any" in error, "podman would start it without"
    assert containers(engine) == []


def test_a_named_container_is_started_and_stopped_and_stays(desk: Desk, engine: Path) -> None:
    shape = section(engine)
    body = {
        "Image": dockerd.IMAGE,
        "Entrypoint": [sys.executable],
        "Cmd": ["-m", "llmpod.sim.vllm", "--model", MODEL, "--port", str(desk.model_port)],
        "Env": [f"PYTHONPATH={ROOT}"],
        "HostConfig": {"NetworkMode": "host", "Binds": shape["mounts"]},
    }
    text = json.dumps(body).encode()
    assert dockerd.ask(engine, "POST", "/containers/create?name=coder", text)[0] == 201
    named = {"socket": str(engine), "container": "coder", "port": desk.model_port, "stop_seconds": 5}
    desk.configure("docker", named)
    desk.passes_until("ready")
    desk.manage("--shutdown").expect()
    (box,) = containers(engine)
    assert (box["Names"], box["State"]) == (["/coder"], "exited")
    dockerd.ask(engine, "DELETE", "/containers/coder?force=1")


def test_a_name_that_is_taken_gives_no_second_container(engine: Path) -> None:
    """Docker answers 409, podman 500; either leaves open whose the first one is, which a list then says."""
    settings = section(engine, "-c", "import signal; signal.pause()", stop_seconds=0)
    backend = Containers(DockerSection.model_validate(settings), Engine(engine))
    offer = Offer("docker", usd_per_hour=0.0)
    spec, key = Spec("org/m", "org/m", "", (), 0, 0, (offer,), digest="d1"), {"VLLM_API_KEY": "sk-bait"}
    made = backend.create(spec, offer, "llmpod-0-1-2", key, deadline=time.time() + 60)
    with pytest.raises(CreateUnknown):
        backend.create(spec, offer, "llmpod-0-1-2", key, deadline=time.time() + 60)
    assert [seen.id for seen in backend.list(()).instances] == [made.id]
    assert backend.destroy(made.id)
    assert not backend.destroy(made.id)
    assert containers(engine) == []


def test_the_beginning_of_an_id_is_nobodys_name(engine: Path, tmp_path: Path) -> None:
    """The engine takes a name that nothing has for that: ours may be gone, and be the beginning of another's id."""
    text = json.dumps({"Image": dockerd.IMAGE, "Cmd": ["x"]}).encode()
    status, made = dockerd.ask(engine, "POST", "/containers/create?name=somebodys", text)
    assert status == 201
    ours = DockerSection(container=json.loads(made)["Id"][:12], port=8000)
    backend = ExistingContainer(ours, Engine(engine), Machines(tmp_path / "machines"))
    with pytest.raises(BadSpec, match="There is no container"):
        backend.inspect()
    dockerd.ask(engine, "DELETE", "/containers/somebodys?force=1")
