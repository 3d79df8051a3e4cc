"""Not a test: what a wake adds to a model server's own start, seen by clients alone.

    .venv/bin/python -m tests.load.wake [--rounds 7] [fake] [llama.cpp] [vllm] [transformers]

In turns the server is started by hand and asked until it answers, and a first request is sent to a proxy whose model
sleeps; both end with a whole answer of one token. A line of JSON each: the difference of the medians, and all times.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.proxy.front import Client
from tests.support.desk import MODEL, Desk
from tests.support.isolation import isolated
from tests.support.net import free_port, listens
from tests.support.process import PYTHON, running
from tests.support.real_servers import SERVERS, Server
from tests.support.source import ROOT
from tests.support.wait import eventually

MOST_SECONDS = 900.0
FAKE = "fake"


def server_of(name: str, directory: Path) -> Server:
    """One to measure, its model made in ``directory``. Exits with the reason where it is not installed."""
    if name == FAKE:
        return Server(MODEL, [PYTHON, "-m", "llmpod.sim.vllm", "--model", MODEL], {"cwd": str(ROOT)}, "", {})
    if name not in SERVERS:
        raise SystemExit(f"{name}: there are {', '.join([FAKE, *SERVERS])}")
    make, why_not = SERVERS[name]
    if reason := why_not():
        raise SystemExit(f"{name}: {reason}")
    return make(directory)


def answered(port: int, model: str) -> bool:
    """One whole answer to a question that nobody asked before; False: refused. Raises OSError."""
    text = f"{time.monotonic_ns()}"
    question = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 1}
    with Client(port, timeout=MOST_SECONDS) as client:
        client.send("POST", "/v1/chat/completions", json.dumps(question).encode())
        return client.reply().status == 200


def by_hand(server: Server, desk: Desk) -> float:
    """Seconds from the start of its process to its first answer."""
    port = free_port()
    given = server.settings.get("env", {})
    env = {**desk.env, **given} if isinstance(given, dict) else desk.env
    begun = time.monotonic()
    with running([*server.command, "--host", "127.0.0.1", "--port", str(port)], env=env):
        eventually(lambda: answered(port, server.model), within=MOST_SECONDS, every=0.002, ignoring=OSError)
        return time.monotonic() - begun


def by_request(server: Server, desk: Desk) -> float:
    """Seconds from a request to its answer, its model asleep."""
    eventually(lambda: desk.state()["phase"] == "stopped", within=60, every=0.2)
    begun = time.monotonic()
    assert answered(desk.port, server.model), "the model did not start; see its log"
    return time.monotonic() - begun


@contextmanager
def asleep(server: Server, desk: Desk) -> Iterator[None]:
    """A proxy whose model starts with a request, and sleeps again a second after it."""
    settings = {"start": "on_request", "idle_seconds": 1, "start_timeout_seconds": MOST_SECONDS}
    desk.configure("process", {**server.section, "require_key": False}, **server.changes, **settings)
    desk.manage().expect()
    try:
        eventually(lambda: listens(desk.port), within=20)
        yield
    finally:
        desk.manage("--shutdown").expect()


def measured(name: str, rounds: int) -> dict[str, object]:
    """All times of one server, in turns after one of each that does not count."""
    with TemporaryDirectory() as text:
        directory, home = Path(text) / "state", Path(text) / "home"
        directory.mkdir(mode=0o700)
        home.mkdir()
        desk = Desk(directory, isolated(os.environ, home=home))
        server = server_of(name, directory)
        with asleep(server, desk):
            turns = [(by_hand(server, desk), by_request(server, desk)) for _ in range(rounds + 1)][1:]
    own, through = zip(*turns, strict=True)
    adds = statistics.median(through) - statistics.median(own)
    return {"server": name, "adds": adds, "own": own, "by_request": through}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("servers", nargs="*", default=[FAKE, "llama.cpp"], help=", ".join([FAKE, *SERVERS]))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    for name in options.servers:
        found = measured(name, options.rounds)
        sys.stdout.write(json.dumps(found, default=float) + "\n")


if __name__ == "__main__":
    main()
