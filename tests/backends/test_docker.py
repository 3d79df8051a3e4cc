"""Containers: what the engine's answers mean, on a unix socket of our own."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmpod.backends.docker import Containers
from llmpod.backends.docker_api import Cut, Engine, log_text
from llmpod.config import DockerSection
from llmpod.errors import BadCredentials, BadSpec, CreateUnknown, ProviderUnavailable
from llmpod.model import Offer, Spec

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


MADE = reply(201, {"Id": "abc"})
HEARD = reply(200, {"HostConfig": {"DeviceRequests": [{"Count": -1}]}})
DONE = b"HTTP/1.1 204 x\r\n\r\n"


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
    with script(tmp_path, MADE, HEARD, DONE) as (backend, server):
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
        (DONE, 'could not select device driver "" with capabilities: [[gpu]]', BadSpec),
        (DONE, "port is already allocated", ProviderUnavailable),
        (reply(500, {"message": "busy"}), "port is already allocated", CreateUnknown),
    ],
)
def test_one_that_does_not_start_is_removed(
    tmp_path: Path, removal: bytes, message: str, error: type[Exception]
) -> None:
    answers = (MADE, HEARD, reply(500, {"message": message}), removal)
    with script(tmp_path, *answers) as (backend, server), pytest.raises(error) as caught:
        create(backend)
    assert type(caught.value) is error
    assert server.asked[3].startswith(b"DELETE /containers/abc?force=1")


@pytest.mark.parametrize(
    ("heard", "error"),
    [
        (reply(200, {"HostConfig": {}}), BadSpec),
        (reply(200, {"HostConfig": {"DeviceRequests": None}}), BadSpec),
        (reply(500, {"message": "oops"}), CreateUnknown),
        (b"", CreateUnknown),
    ],
)
def test_a_model_is_not_started_without_the_gpus_it_was_to_have(
    tmp_path: Path, heard: bytes, error: type[Exception]
) -> None:
    answers = (MADE, heard, DONE) if error is BadSpec else (MADE, heard)
    with script(tmp_path, *answers) as (backend, server), pytest.raises(error) as caught:
        create(backend)
    assert type(caught.value) is error
    assert [asked.split(b" ")[0] for asked in server.asked][2:] == [b"DELETE"] * (error is BadSpec)


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
