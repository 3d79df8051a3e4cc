"""A server that listens before it has loaded, as llama.cpp does: who waits for it is served as soon as it can."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.support.desk import MODEL, Desk
from tests.support.net import listens
from tests.support.source import ROOT
from tests.support.wait import eventually

# says 503 for a second, then becomes a model server at the same address
LOADING = """
import os, socket, sys, time
port = int(sys.argv[sys.argv.index("--port") + 1])
with socket.create_server(("127.0.0.1", port)) as door:
    end = time.monotonic() + 1
    while (left := end - time.monotonic()) > 0:
        door.settimeout(left)
        try:
            caller, _ = door.accept()
        except TimeoutError:
            break
        with caller:
            caller.recv(65536)
            caller.sendall(b"HTTP/1.1 503 Loading\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
os.execv(sys.executable, [sys.executable, "-m", "llmpod.sim.vllm", *sys.argv[1:]])
"""


class Refusing(BaseHTTPRequestHandler):
    """A stranger's server: it wants a key of its own."""

    def do_GET(self) -> None:
        self.send_error(401)

    do_POST = do_GET  # noqa: N815 - its name there

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Nothing."""


def test_a_stranger_who_takes_its_port_meanwhile_is_not_taken_for_it(desk: Desk) -> None:
    """Its own server cannot listen then, says so by its end, and is started anew."""
    command = [sys.executable, "-m", "llmpod.sim.vllm", "--model", MODEL, "--load-seconds", "3"]
    section = {"command": command, "cwd": str(ROOT), "port": desk.model_port, "stop_seconds": 5}
    desk.configure("process", section)
    desk.manage().expect()
    stranger = ThreadingHTTPServer(("127.0.0.1", desk.model_port), Refusing)
    with stranger:
        Thread(target=stranger.serve_forever).start()
        desk.manage("--no-proxy").expect()
        seen = desk.state()
        stranger.shutdown()
    assert seen["phase"] != "failed", seen["error"]
    desk.passes_until("ready")


def test_it_is_not_found_by_the_next_look_only(desk: Desk) -> None:
    """The manager's own pace would be an hour."""
    command = [sys.executable, "-c", LOADING, "--model", MODEL]
    desk.write(command, start="on_request", poll_interval_seconds=3600)
    desk.manage().expect()
    eventually(lambda: listens(desk.port), within=20)
    assert desk.ask()["choices"]
