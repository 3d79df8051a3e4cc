"""One installation and its simulator for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmpod.sim.launch import Simulator
from tests.support.desk import Desk
from tests.support.forks import Forks
from tests.support.install import FAST, Install
from tests.support.sims import forked


@pytest.fixture
def fast_sim(forks: Forks, env: dict[str, str]) -> Iterator[Simulator]:
    """A simulator in which machines and models take no time."""
    with forked(forks, env, **FAST) as simulator:
        yield simulator


@pytest.fixture
def install(state_dir: Path, fast_sim: Simulator, env: dict[str, str], forks: Forks) -> Iterator[Install]:
    """manage_pod.py with a private directory; whatever it started is shut down at the end."""
    made = Install(state_dir, fast_sim, env, start=forks.run)
    yield made
    assert not (seen := made.sightings()), seen
    fast_sim.set(**FAST)
    if made.proxy:
        made.manage("--shutdown", within=90)


@pytest.fixture
def desk(state_dir: Path, env: dict[str, str], forks: Forks) -> Iterator[Desk]:
    """manage_pod.py without an account; whatever it started is shut down at the end."""
    made = Desk(state_dir, env, start=forks.run)
    yield made
    if (made.directory / "pod_config.json").exists():  # else the test was skipped before it wrote any
        made.manage("--shutdown").expect()
