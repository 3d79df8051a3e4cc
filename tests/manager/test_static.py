"""The backend `static` through the front door: somebody else's server is used, watched and left alone."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from tests.support.desk import MODEL, Desk
from tests.support.net import free_port, listens
from tests.support.process import Running, running
from tests.support.wait import eventually

KEY = "sk-somebody-elses"


@pytest.fixture
def server(env: dict[str, str]) -> Iterator[tuple[str, Running]]:
    argv = [sys.executable, "-m", "llmpod.sim.vllm", "--model", MODEL]
    with running(argv, env={**env, "VLLM_API_KEY": KEY}) as program:
        program.says("url", within=30)
        yield json.loads(program.out.splitlines()[0])["url"], program


def test_it_answers_through_the_proxy_with_its_own_key_and_is_left_alone(
    desk: Desk, server: tuple[str, Running]
) -> None:
    url, program = server
    key = desk.directory / "key"
    key.write_text(KEY + "\n")
    key.chmod(0o600)
    desk.configure("static", {"url": url + "/v1", "api_key_file": "key"})
    desk.manage().expect()
    desk.passes_until("ready")
    eventually(lambda: listens(desk.port), within=20)
    assert eventually(desk.ask, within=20, ignoring=requests.RequestException)["choices"]
    assert KEY not in (desk.directory / "pod_state.json").read_text()
    desk.manage("--shutdown").expect()
    assert desk.state()["phase"] == "stopped"
    assert program.code is None


class Listless(BaseHTTPRequestHandler):
    """It answers, and lists no model, as `transformers serve` does with a model from a directory."""

    def do_GET(self) -> None:
        self._answer(500, b"Internal Server Error")

    def do_POST(self) -> None:
        self._answer(200, b'{"choices": []}')

    def _answer(self, status: int, body: bytes) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Quiet."""


def test_one_that_lists_no_models_is_ready_when_it_answers(desk: Desk) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Listless)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        desk.configure("static", {"url": f"http://127.0.0.1:{server.server_port}"})
        desk.passes_until("ready")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_one_that_is_away_is_looked_for_until_it_is_there(desk: Desk) -> None:
    desk.configure("static", {"url": f"http://127.0.0.1:{free_port()}"}, unhealthy_after=1, max_restarts=0)
    desk.manage("--no-proxy").expect()
    desk.passes_until("booting")
    assert "nothing answers at" in desk.state()["error"]
