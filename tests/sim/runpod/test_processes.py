"""The simulator's processes, beyond what tests/sim/test_launch.py looks at."""

import json
import os
import signal

import pytest
import requests

from llmpod.sim.launch import Simulator
from tests.sim.runpod.api import AGENT, Api
from tests.support import procfs
from tests.support.install import FAST
from tests.support.process import PYTHON, running
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


@needs_proc
def test_ctrl_c_at_the_terminal_does_not_reach_it() -> None:
    with Simulator.start(pods="inline") as sim:
        assert os.getsid(sim.pid) == sim.pid != os.getsid(0)


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
