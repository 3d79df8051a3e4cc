"""Fixtures for every test: isolated environment, private folders, simulator, no process left behind."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.support.canaries import Canaries
from tests.support.children import _no_process_left, _orphans
from tests.support.forks import Forks
from tests.support.isolation import isolated

if TYPE_CHECKING:
    from llmpod.sim.launch import Simulator

__all__ = ["_no_process_left", "_orphans"]

# Two shared cores make a time limit per example a coin toss; pytest-timeout bounds the test as a whole.
# In CI the examples are the same every time; at a desk they are new ones, and a failing one can be repeated.
hypothesis.settings.register_profile(
    "llmpod", deadline=None, database=None, print_blob=True, derandomize="CI" in os.environ
)
hypothesis.settings.load_profile("llmpod")


@pytest.fixture(autouse=True)
def _isolated_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No RUNPOD_API_KEY, HF_TOKEN or HOME of the machine's owner, in this process or in those it starts."""
    home = tmp_path_factory.mktemp("home")
    allowed = isolated(os.environ, home=home)
    for name in set(os.environ) - set(allowed):
        monkeypatch.delenv(name)
    for name, value in allowed.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def env() -> dict[str, str]:
    """A copy of the isolated environment, to add to and hand to a process."""
    return dict(os.environ)


@pytest.fixture
def canaries() -> Canaries:
    return Canaries.fresh()


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A folder for state files, mode 0700 as the manager would make it."""
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def sim() -> Iterator["Simulator"]:
    """A fake RunPod with fake vLLM pods, on loopback sockets, in a process of its own."""
    from llmpod.sim.launch import Simulator  # most tests need no simulator, none should load it

    with Simulator.start(pods="inline") as simulator:
        yield simulator


@pytest.fixture(scope="session")
def forks(_orphans: None) -> Iterator[Forks]:
    """Runs manage_pod.py without the start of an interpreter."""
    with Forks() as warm:
        yield warm


def pytest_xdist_auto_num_workers() -> int:
    """Three a core: most tests wait for processes and sockets longer than they compute (load 1.2 with two)."""
    return 3 * (os.cpu_count() or 1)


@pytest.fixture(scope="module")
def _module_sim() -> Iterator["Simulator"]:
    from llmpod.sim.launch import Simulator

    with Simulator.start(pods="inline") as simulator:
        yield simulator


@pytest.fixture
def shared_sim(_module_sim: "Simulator") -> "Simulator":
    """One simulator for the tests of a module, as new for each."""
    _module_sim.reset()
    return _module_sim
