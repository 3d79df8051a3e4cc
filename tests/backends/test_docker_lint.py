"""What doctor says of an existing container and its compose file: names, ports, restart policy, profiles."""

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from llmpod.backends.docker_lint import compose_file, findings, has_profiles
from tests.support.desk import Desk

COMPOSE = """
# models on this machine
services:
  coder:
    image: vllm/vllm-openai:v0.29.0
    profiles: [coder]
    ports:
      - "127.0.0.1:8001:8000"

  "chat":
    image: vllm/vllm-openai:v0.29.0   # no profiles: here
    environment:
      profiles: "not this one"
volumes:
  profiles:
"""


def inspected(file: str = "/srv/compose.yaml", **changes: Any) -> dict[str, Any]:
    """A container as the engine tells of it, made from the file above."""
    labels = {
        "com.docker.compose.project": "llm",
        "com.docker.compose.service": "coder",
        "com.docker.compose.project.config_files": file,
    }
    bound = {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8001"}]}
    host = {"NetworkMode": "llm_default", "PortBindings": bound, "RestartPolicy": {"Name": "no"}}
    config = {"Labels": labels | changes.pop("labels", {})}
    return {"Name": "/coder", "Config": config, "State": {"Status": "exited"}, "HostConfig": host | changes}


def texts(found: dict[str, Any], name: str = "coder", text: str | None = COMPOSE) -> list[str]:
    return [finding.text for finding in findings(found, name, 8001, text)]


def test_one_that_is_as_it_should_be_is_not_complained_of() -> None:
    assert texts(inspected()) == []


def test_a_name_that_compose_made_up_is_told() -> None:
    for name in ("llm-coder-1", "llm_coder_2"):
        assert "made up" in texts(inspected(), name)[0]


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::"])  # noqa: S104 - what is looked for
def test_a_port_for_everybody_is_told(address: str) -> None:
    bound = {"8000/tcp": [{"HostIp": address, "HostPort": "8001"}]}
    (finding,) = findings(inspected(PortBindings=bound), "coder", 8001, COMPOSE)
    assert "other machines" in finding.text
    assert finding.mend == 'ports: ["127.0.0.1:8001:8000"]'
    assert not finding.fatal


@pytest.mark.parametrize(
    "bound", [None, {}, {"80/tcp": [{"HostIp": "", "HostPort": "9"}]}, {"80/tcp": None}, []]
)
def test_a_port_that_is_not_published_cannot_work(bound: object) -> None:
    (finding,) = findings(inspected(PortBindings=bound), "coder", 8001, COMPOSE)
    assert finding.fatal
    assert "not published" in finding.text


def test_on_the_hosts_network_nothing_is_published() -> None:
    assert texts(inspected(NetworkMode="host", PortBindings={})) == []


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_a_restart_without_an_order_is_told(policy: str) -> None:
    assert policy in texts(inspected(RestartPolicy={"Name": policy}))[0]


def test_a_service_without_a_profile_is_told() -> None:
    assert "no profile" in texts(inspected(labels={"com.docker.compose.service": "chat"}), "chat")[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "services: {coder: {image: x}}",
        "services:\n  coder: {image: x}\n",
        "services:\n\tcoder:\n\t\timage: x\n",
        "services:\n  coder:\n    <<: *base\n",
        "services:\n  coder:\n    extends: {service: base}\n",
        "services:\n  other:\n    image: x\n",
        "services:\n  'cod\\u0065r':\n    image: x\n",
    ],
)
def test_of_a_file_of_another_form_nothing_is_guessed(text: str) -> None:
    assert not has_profiles(text, "coder")
    assert texts(inspected(), text=text) == []


def test_a_container_of_no_compose_file_has_no_profiles_to_miss() -> None:
    bare = inspected()
    bare["Config"] = {"Labels": None}
    assert compose_file(bare) == ""
    assert texts(bare, text=None) == []
    assert compose_file(inspected("/a.yaml,/b.yaml")) == ""


# --- through the front door
class Engine(socketserver.ThreadingUnixStreamServer):
    """An engine with one container."""

    daemon_threads = True
    found: dict[str, Any]


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Engine)
        here = self.path == "/containers/coder/json"
        body = json.dumps(self.server.found if here else {"message": "No such container"}).encode()
        self.send_response(200 if here else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Quiet."""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Path]:
    compose, path = tmp_path / "compose.yaml", tmp_path / "d.sock"
    compose.write_text(COMPOSE.replace("    profiles: [coder]\n", ""))
    server = Engine(str(path), Answers)
    server.found = inspected(str(compose), RestartPolicy={"Name": "always"})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield path
    server.shutdown()
    thread.join()
    server.server_close()


def checks(desk: Desk, engine: Path, name: str) -> list[dict[str, str]]:
    desk.configure("docker", {"socket": str(engine), "container": name, "port": 8001})
    document = json.loads(desk.manage("doctor", "--json").out)
    return [check for check in document["checks"] if check["name"] == "container"]


def test_doctor_looks_at_the_container_and_its_file(
    engine: Path, state_dir: Path, env: dict[str, str]
) -> None:
    desk = Desk(state_dir, env)
    found = checks(desk, engine, "coder")
    assert [check["status"] for check in found] == ["warning", "warning"]
    assert "restart: always" in found[0]["found"]
    assert str(engine.parent / "compose.yaml") in found[1]["mend"]
    (missing,) = checks(desk, engine, "nobody")
    assert missing["status"] == "problem"
    assert "docker compose up --no-start" in missing["mend"]
