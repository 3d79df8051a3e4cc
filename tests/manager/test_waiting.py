"""Who waits for a model to load takes no place from those who ask for another one."""

import sys
import threading
from contextlib import ExitStack

from tests.manager.test_reload_models import ask, configure, model, send
from tests.proxy.front import Client
from tests.support.desk import Desk
from tests.support.net import free_port
from tests.support.source import ROOT
from tests.support.wait import eventually

PLACES = 2
# a server that begins when a file is there: the test says when
LATE = """
import pathlib, runpy, sys, time
gate = pathlib.Path(sys.argv.pop(1))
while not gate.exists():
    time.sleep(0.05)
runpy.run_module("llmpod.sim.vllm", run_name="__main__")
"""


def test_more_wait_for_one_model_than_there_are_places_and_the_other_one_answers(desk: Desk) -> None:
    gate = desk.directory / "gate"
    words = [sys.executable, "-c", LATE, str(gate), "--model", "org/late"]
    late: dict[str, object] = {
        "model": "org/late",
        "process": {"command": words, "cwd": str(ROOT), "port": free_port()},
    }
    configure(desk, {"a": model("org/a"), "late": late}, max_in_flight=PLACES)
    with ExitStack() as stack:
        waiting = [stack.enter_context(Client(desk.port, timeout=120)) for _ in range(3 * PLACES)]
        for number, client in enumerate(waiting):
            send(client, "late", f"question {number}")
        eventually(lambda: _waiting(desk) == len(waiting), within=30)
        assert ask(desk, "a", "hello").status == 200
        waiting.pop().close()
        eventually(lambda: _waiting(desk) == len(waiting), within=30)
        gate.touch()
        assert [client.reply().status for client in waiting] == [200] * len(waiting)
    assert ask(desk, "a", "and again").status == 200
    threads = [threading.Thread(target=ask, args=(desk, "late", f"after {n}")) for n in range(PLACES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ask(desk, "late", "after 0").cache == "HIT", "all places were given back"


def _waiting(desk: Desk) -> int:
    with Client(desk.port) as client:
        client.send("GET", "/stats")
        return int(next(m["waiting"] for m in client.reply("GET").json["models"] if m["model"] == "late"))
