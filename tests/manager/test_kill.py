"""`kill -9` of the manager at many moments of its first start, as a whole process, against the simulator.

What the in-memory worlds of tests/lifecycle cannot show: real files, real sockets, a real death.
"""

import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llmpod.sim.launch import Simulator
from tests.support.install import Install

SAMPLE = 12
MOMENTS = 240
SPAN = 1.2  # of an undisturbed first start: moments after its end count too


def first_start_seconds(install: Install) -> float:
    begun = time.monotonic()
    install.manage().expect()
    took = time.monotonic() - begun
    install.manage("--shutdown").expect()
    return took


def pods_of(install: Install, sim: Simulator) -> list[dict[str, Any]]:
    """Every pod that this installation ever had."""
    state = install.directory / "pod_state.json"
    install_id = install.install_id if state.exists() else ""
    return [pod for pod in sim.state()["pods"] if install_id and f"-{install_id}-" in pod["name"]]


def killed_after(install: Install, seconds: float) -> None:
    manager = subprocess.Popen(
        install.argv(),
        env=install.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with suppress(subprocess.TimeoutExpired):
        manager.wait(seconds)
    manager.kill()
    manager.wait()


def overlaps(pods: Iterable[dict[str, Any]]) -> bool:
    lives = sorted((p["created_at"], p["terminated_at"] or float("inf")) for p in pods)
    return any(later[0] < earlier[1] for earlier, later in pairwise(lives))


def one_cell(directory: Path, sim: Simulator, env: dict[str, str], delay: float) -> str:
    """Kill, settle, shut down; what went wrong, or nothing."""
    directory.mkdir(mode=0o700)
    install = Install(directory, sim, env)
    killed_after(install, delay)
    try:
        install.passes_until("ready")
        alive = [pod for pod in pods_of(install, sim) if pod["terminated_at"] is None]
        if len(alive) != 1:
            return f"{delay:.3f} s: {len(alive)} pods when settled"
        install.manage("--shutdown").expect()
    except AssertionError as e:
        return f"{delay:.3f} s: {e}"
    pods = pods_of(install, sim)
    if any(pod["terminated_at"] is None for pod in pods):
        return f"{delay:.3f} s: a pod is left after --shutdown"
    return f"{delay:.3f} s: two pods at once" if overlaps(pods) else ""


def sweep(tmp_path: Path, sim: Simulator, env: dict[str, str], moments: int) -> None:
    calibration = tmp_path / "calibration"
    calibration.mkdir(mode=0o700)
    span = first_start_seconds(Install(calibration, sim, env)) * SPAN
    delays = [span * n / moments for n in range(moments)]
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda d: one_cell(tmp_path / f"{d:.6f}", sim, env, d), delays))
    assert [line for line in said if line] == []
    bill = sim.bill()["total_usd"]
    sim.advance(3600)
    assert sim.bill()["total_usd"] == pytest.approx(bill), "somebody still pays"


def test_killed_at_a_sample_of_moments(tmp_path: Path, fast_sim: Simulator, env: dict[str, str]) -> None:
    sweep(tmp_path, fast_sim, env, SAMPLE)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_at_240_moments(tmp_path: Path, fast_sim: Simulator, env: dict[str, str]) -> None:
    """240 cells of the first start; each settles, is shut down, and its pods and bill are checked."""
    sweep(tmp_path, fast_sim, env, MOMENTS)
