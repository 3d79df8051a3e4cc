"""A server that listens before it has loaded, as llama.cpp does: who waits for it is served as soon as it can."""

import sys

from tests.support.desk import MODEL, Desk
from tests.support.net import listens
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


def test_it_is_not_found_by_the_next_look_only(desk: Desk) -> None:
    """The manager's own pace would be an hour."""
    command = [sys.executable, "-c", LOADING, "--model", MODEL]
    desk.write(command, start="on_request", poll_interval_seconds=3600)
    desk.manage().expect()
    eventually(lambda: listens(desk.port), within=20)
    assert desk.ask()["choices"]
