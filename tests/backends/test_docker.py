"""Containers: what the engine's answers mean, on a unix socket of our own; and a real engine, where there is one."""

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from llmpod.backends.docker import Containers
from llmpod.backends.docker_api import Cut, Engine, log_text
from llmpod.backends.docker_existing import ExistingContainer
from llmpod.backends.machines import Machines
from llmpod.config import DockerSection
from llmpod.errors import BadCredentials, BadSpec, CreateUnknown, ProviderUnavailable
from llmpod.model import Offer, Spec
from tests.support import dockerd, llama
from tests.support.desk import MODEL, Desk
from tests.support.net import listens
from tests.support.source import ROOT
from tests.support.wait import eventually

OFFER = Offer("docker", usd_per_hour=0.0)
SPEC = Spec("org/m", "org/m", "", (), 0, 0, (OFFER,), digest="d1")
KEY = {"VLLM_API_KEY": "sk-bait"}


class Script:
    """A server on a unix socket that gives the answers it was given, and keeps what it was asked."""

    def __init__(self, path: Path, answers: list[bytes]) -> None:
        self.asked: list[bytes] = []
        self._answers = answers
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for answer in self._answers:
            connection, _ = self._server.accept()
            with connection:
                connection.settimeout(10)
                data = connection.recv(65536)
                head, _, body = data.partition(b"\r\n\r\n")
                length = next(
                    (
                        int(w.split(b":")[1])
                        for w in head.split(b"\r\n")
                        if w.lower().startswith(b"content-length")
                    ),
                    0,
                )
                while len(body) < length:
                    body += connection.recv(65536)
                self.asked.append(head + b"\r\n\r\n" + body)
                connection.sendall(answer)

    def close(self) -> None:
        self.thread.join(10)
        self._server.close()


@contextmanager
def script(directory: Path, *answers: bytes) -> Iterator[tuple[Containers, Script]]:
    path = directory / "d.sock"
    server = Script(path, list(answers))
    server.thread.start()
    try:
        yield Containers(DockerSection(image="x/y:1", gpus="all"), Engine(path)), server
    finally:
        server.close()


def reply(status: int, document: object) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


def create(backend: Containers) -> None:
    backend.create(SPEC, OFFER, "llmpod-0-1-2", KEY, deadline=time.time() + 60)


def test_nobody_there_and_not_allowed_are_told_apart(tmp_path: Path) -> None:
    missing = Containers(DockerSection(image="x"), Engine(tmp_path / "no.sock"))
    with pytest.raises(ProviderUnavailable, match=r"No container engine answers.*docker\.socket"):
        missing.list(())
    with pytest.raises(ProviderUnavailable):
        create(missing)
    assert BadCredentials.exit_code == 77


def test_a_container_is_asked_for_in_full(tmp_path: Path) -> None:
    made, started = reply(201, {"Id": "abc"}), b"HTTP/1.1 204 x\r\n\r\n"
    with script(tmp_path, made, started) as (backend, server):
        create(backend)
    head, _, body = server.asked[0].partition(b"\r\n\r\n")
    asked: dict[str, Any] = json.loads(body)
    assert head.startswith(b"POST /containers/create?name=llmpod-0-1-2 ")
    assert asked["Labels"]["llmpod.machine"] == "llmpod-0-1-2"
    assert asked["HostConfig"]["DeviceRequests"] == [{"Driver": "", "Capabilities": [["gpu"]], "Count": -1}]
    ((published,),) = asked["HostConfig"]["PortBindings"].values()
    assert published["HostIp"] == "127.0.0.1"
    assert asked["Cmd"] == ["--host", "0.0.0.0", "--port", "8000"]  # noqa: S104 - inside
    assert "VLLM_API_KEY=sk-bait" in asked["Env"]
    assert "sk-bait" not in " ".join(asked["Cmd"])


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (reply(404, {"message": "No such image: x/y:1"}), BadSpec, "docker pull x/y:1"),
        (reply(400, {"message": "invalid volume"}), BadSpec, "invalid volume"),
        (reply(500, {"message": "oops"}), CreateUnknown, "oops"),
        (reply(409, {"message": "name in use"}), CreateUnknown, "name in use"),
        (b"HTTP/1.1 201 x\r\ncontent-length: 99\r\n\r\n{", CreateUnknown, "broke off"),
        (b"", CreateUnknown, "broke off"),
        (reply(201, ["odd"]), CreateUnknown, "201"),
    ],
)
def test_the_outcomes_of_a_creation(tmp_path: Path, answer: bytes, error: type[Exception], text: str) -> None:
    with script(tmp_path, answer) as (backend, _), pytest.raises(error) as caught:
        create(backend)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("removal", "message", "error"),
    [
        (b"HTTP/1.1 204 x\r\n\r\n", 'could not select device driver "" with capabilities: [[gpu]]', BadSpec),
        (b"HTTP/1.1 204 x\r\n\r\n", "port is already allocated", ProviderUnavailable),
        (reply(500, {"message": "busy"}), "port is already allocated", CreateUnknown),
    ],
)
def test_one_that_does_not_start_is_removed(
    tmp_path: Path, removal: bytes, message: str, error: type[Exception]
) -> None:
    made = reply(201, {"Id": "abc"})
    answers = (made, reply(500, {"message": message}), removal)
    with script(tmp_path, *answers) as (backend, server), pytest.raises(error) as caught:
        create(backend)
    assert type(caught.value) is error
    assert server.asked[2].startswith(b"DELETE /containers/abc?force=1")


def test_a_list_that_is_none_says_nothing(tmp_path: Path) -> None:
    with script(tmp_path, reply(200, {"no": "list"})) as (backend, _), pytest.raises(ProviderUnavailable):
        backend.list(())
    (tmp_path / "d.sock").unlink()
    with script(tmp_path, b"") as (backend, _), pytest.raises(Cut):
        backend.list(())


def test_logs_come_in_frames_or_plain() -> None:
    frames = b"\x01\0\0\0\0\0\0\x03ab\n" + b"\x02\0\0\0\0\0\0\x02c\n" + b"\x01\0\0\0\0\0\0\x09cut"
    assert log_text(frames) == "ab\nc\ncut"
    assert log_text(b"plain text") == "plain text"


# --- a real engine
@pytest.fixture(scope="module")
def engine() -> Iterator[Path]:
    if reason := dockerd.why_not():
        pytest.skip(f"no Docker Engine: {reason}")
    with dockerd.dockerd() as path:
        yield path


@pytest.fixture
def desk(state_dir: Path, env: dict[str, str], engine: Path) -> Iterator[Desk]:
    made = Desk(state_dir, env)
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


@pytest.mark.component
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


@pytest.mark.component
@pytest.mark.skipif(bool(llama.why_not()), reason=llama.why_not())
def test_a_real_model_server_in_a_real_container_answers_through_the_proxy(desk: Desk, engine: Path) -> None:
    python, *words = llama.command(desk.directory)
    shape = section(engine, *words, entrypoint=[python], require_key=True)
    mounts = shape["mounts"]
    assert isinstance(mounts, list)
    desk.configure("docker", {**shape, "mounts": [*mounts, f"{desk.directory}:{desk.directory}:ro"]})
    desk.manage().expect()
    desk.passes_until("ready")
    eventually(lambda: listens(desk.port), within=20)
    answer = eventually(desk.ask, within=30, ignoring=requests.RequestException)
    assert answer["usage"]["completion_tokens"] == 8


@pytest.mark.component
def test_a_real_container_that_crashes_says_why(desk: Desk, engine: Path) -> None:
    crash = section(engine, "-c", "import sys; print('no weights here'); sys.exit(5)")
    desk.configure("docker", crash, max_restarts=0)
    error = desk.passes_until("failed")["error"]
    assert "exit code 5" in error
    assert "no weights here" in error
    assert containers(engine) == []


@pytest.mark.component
def test_real_refusals(desk: Desk, engine: Path) -> None:
    desk.configure("docker", section(engine, image="no/such:1"))
    assert "docker pull no/such:1" in desk.passes_until("failed")["error"]
    desk.configure("docker", section(engine, "-c", "pass", gpus="all"))
    assert "device driver" in desk.passes_until("failed")["error"]
    assert containers(engine) == []


@pytest.mark.component
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
