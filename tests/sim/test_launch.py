"""Starting and ending the simulator: nothing of it may stay, however it or its starter ends."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from llmpod.sim.launch import Simulator, SimulatorError
from tests.sim.conftest import AT_ONCE, client_of
from tests.support import procfs
from tests.support.net import listens
from tests.support.process import PYTHON, run, running
from tests.support.source import ROOT
from tests.support.wait import eventually


def gone(pid: int) -> bool:
    process = procfs.read(pid)
    return process is None or process.is_zombie


def test_it_says_in_one_line_where_it_listens_and_ends_on_sigterm() -> None:
    with running([PYTHON, "-m", "llmpod.sim", "--pods", "inline"]) as program:
        program.says("\n")
        ready = json.loads(program.out)
        assert set(ready) == {"api_url", "proxy_url", "control_url", "pid", "key"}
        assert ready["control_url"] == ready["api_url"] + "/__sim"
        assert ready["proxy_url"].endswith("/{id}-{port}")
        assert ready["pid"] == program.pid
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert program.out.count("\n") == 1
        assert program.err == ""


def test_imports_are_quick() -> None:
    """Half a second of a busy core; what only inline pods need is imported by them."""
    code = """
        import sys, time
        import llmpod.sim.api, llmpod.sim.hosts
        print(time.process_time(), *{"fastapi", "starlette", "uvicorn"} & set(sys.modules))
    """
    seconds, *loaded = run([PYTHON, "-c", textwrap.dedent(code)]).expect().out.split()
    assert float(seconds) < 0.5
    assert loaded == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--behavior", '{"lod_seconds": 1}'],
        ["--behavior", '{"load_seconds": "1"}'],
        ["--behavior", "no"],
        ["--pods", "x"],
    ],
)
def test_what_it_does_not_understand_it_refuses(arguments: list[str]) -> None:
    assert run([PYTHON, "-m", "llmpod.sim", *arguments]).code == 2


def test_a_start_that_fails_says_so() -> None:
    with pytest.raises(SimulatorError, match="code 2"):
        Simulator.start(behavior={"no_such_thing": 1})


def test_close_twice_ends_it_once_with_its_pods() -> None:
    with client_of(pods="process") as client:
        pod = client.ready(client.pod())
        server = client.facts(pod)["server_pid"]
        assert not gone(server)
        client.sim.close()
        client.sim.close()
        assert gone(client.sim.pid)
        assert gone(server)


def test_a_pods_process_outlives_not_even_a_simulator_that_was_killed() -> None:
    with client_of(pods="process") as client:
        pod = client.ready(client.pod())
        facts = client.facts(pod)
        os.kill(client.sim.pid, signal.SIGKILL)
        eventually(lambda: gone(facts["server_pid"]))
        assert not listens(facts["server_port"])


def test_it_ends_with_the_process_that_started_it_even_when_that_is_killed() -> None:
    script = """
        import sys, time
        from llmpod.sim.launch import Simulator
        sim = Simulator.start(pods="inline")
        print(sim.pid, flush=True)
        time.sleep(600)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert not gone(pid)
        starter.kill()
        starter.wait()
        eventually(lambda: gone(pid))


def test_the_key_is_in_no_argument_list() -> None:
    with client_of(pods="process") as client:
        client.ready(client.pod())
        for process in procfs.descendants(os.getpid()):
            arguments = (procfs.PROC / str(process.pid) / "cmdline").read_bytes()
            assert client.sim.key.encode() not in arguments
            assert b"sk-of-the-pod" not in arguments


def test_many_pods_are_cheap_inline() -> None:
    with client_of() as client:
        pods = [client.pod(name=f"pod-{number}") for number in range(8)]
        client.sim.set(capacity={"*": 100})
        pods += [client.pod(name=f"more-{number}") for number in range(22)]
        for pod in pods:
            client.ready(pod)
        assert len({client.facts(pod)["server_port"] for pod in pods}) == 30


def test_behavior_at_the_start_is_what_reset_goes_back_to() -> None:
    with client_of(behavior={**AT_ONCE, "page_size": 7}) as client:
        client.sim.set(page_size=3)
        client.pod()
        client.sim.fault("list", "500")
        client.sim.reset()
        assert client.sim.state()["pods"] == []
        assert client.sim.requests() == []
        assert client.call("GET", "/v2/pods").status_code == 200
        behavior = client.http.get(client.sim.control_url + "/behavior").json()
        assert behavior["page_size"] == 7
