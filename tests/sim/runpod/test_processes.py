"""The simulator as a program: what it starts, what it leaves behind, and who may end it."""

import json
import os
import signal
import subprocess
import sys

import pytest
import requests

from llmpod.sim.launch import Simulator
from tests.sim.runpod.api import AGENT, Api
from tests.support import procfs
from tests.support.install import FAST
from tests.support.process import PYTHON, run, running
from tests.support.wait import eventually

needs_proc = pytest.mark.skipif(not procfs.available(), reason="processes are looked at through /proc")


def alive(pid: int) -> bool:
    process = procfs.read(pid)
    return process is not None and not process.is_zombie


def pods_of(sim: Simulator) -> list[int]:
    """Pids of the model servers."""
    found = procfs.descendants(os.getpid())
    return [process.pid for process in found if process.parent == sim.pid]


@needs_proc
def test_each_pod_is_a_process_that_ends_with_the_pod() -> None:
    with Simulator.start(behavior=FAST) as sim:
        api = Api(sim)
        first, second = api.create()["id"], api.create()["id"]
        api.ready(first)
        api.ready(second)
        assert len(pods_of(sim)) == 2
        assert api.call("DELETE", f"/v2/pods/{first}").status_code == 204
        eventually(lambda: len(pods_of(sim)) == 1)
        (left,) = pods_of(sim)
        api.close()
    assert not alive(sim.pid)
    eventually(lambda: not alive(left))


@needs_proc
def test_sigkill_of_the_simulator_leaves_no_pod() -> None:
    with Simulator.start(behavior=FAST) as sim:
        api = Api(sim)
        api.ready(api.create()["id"])
        (pod,) = pods_of(sim)
        os.kill(sim.pid, signal.SIGKILL)
        eventually(lambda: not alive(pod), within=5)
        api.close()


@needs_proc
def test_a_pod_that_dies_is_started_again_as_runpod_does() -> None:
    with Simulator.start(behavior=FAST) as sim:
        api = Api(sim)
        pod_id = api.create()["id"]
        api.ready(pod_id)
        (pod,) = pods_of(sim)
        os.kill(pod, signal.SIGKILL)
        eventually(lambda: [found for found in pods_of(sim) if found != pod])
        api.ready(pod_id)
        assert api.pod(pod_id)["status"] == "RUNNING"
        api.close()


STARTS_AND_DIES = """
import os, signal, sys
from llmpod.sim.launch import Simulator
sim = Simulator.start(pods="inline")
print(sim.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@needs_proc
def test_it_ends_when_whoever_started_it_is_killed() -> None:
    ended = run([PYTHON, "-c", STARTS_AND_DIES])
    assert ended.code == -signal.SIGKILL
    pid = int(ended.out)
    eventually(lambda: not alive(pid))


def test_closing_twice_is_closing_once() -> None:
    sim = Simulator.start(pods="inline")
    sim.close()
    sim.close()
    with pytest.raises(requests.ConnectionError):
        requests.get(sim.api_url + "/v2/pods", timeout=5)


@needs_proc
def test_ctrl_c_at_the_terminal_does_not_reach_it() -> None:
    with Simulator.start(pods="inline") as sim:
        assert os.getsid(sim.pid) == sim.pid != os.getsid(0)


def test_the_key_is_not_among_the_arguments() -> None:
    with Simulator.start(pods="inline", key="rpa_a_key_of_my_own") as sim:
        assert sim.key == "rpa_a_key_of_my_own"
        assert Api(sim).ids() == []
        if procfs.available():
            process = procfs.read(sim.pid)
            assert process is not None
            assert sim.key not in process.command


def test_it_is_a_program_for_a_person_too(env: dict[str, str]) -> None:
    with running([PYTHON, "-m", "llmpod.sim", "--pods", "inline"], env=env) as program:
        program.says("api_url")
        (line,) = program.out.splitlines()
        ready = json.loads(line)
        assert ready["pid"] == program.pid
        headers = {"Authorization": f"Bearer {ready['key']}", "User-Agent": AGENT}
        assert requests.get(ready["api_url"] + "/v2/pods", headers=headers, timeout=5).status_code == 200
        assert requests.get(ready["control_url"] + "/state", timeout=5).json()["pods"] == []
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert program.err == ""


@pytest.mark.parametrize("behavior", ['{"container_second": 1}', '{"never_ready": 3}', "[]", "{"])
def test_a_behavior_it_does_not_understand_is_refused_at_once(behavior: str, env: dict[str, str]) -> None:
    done = run([PYTHON, "-m", "llmpod.sim", "--behavior", behavior], env=env).expect(2)
    assert done.out == ""
    if "container_second" in behavior:
        assert "container_seconds" in done.err


def test_it_starts_fast_because_it_imports_little() -> None:
    code = "import llmpod.sim.__main__, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"uvicorn", "starlette", "fastapi", "pydantic", "requests", "httpx"}
    assert not heavy & set(loaded.split())
