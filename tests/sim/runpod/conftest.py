"""A simulator in which nothing takes time, and its API."""

from collections.abc import Iterator

import pytest
import requests

from llmpod.sim.launch import Simulator
from tests.sim.runpod.api import Api
from tests.support.install import FAST


@pytest.fixture(scope="module")
def _simulator() -> Iterator[Simulator]:
    with Simulator.start(pods="inline", behavior=FAST) as simulator:
        yield simulator


@pytest.fixture
def fast(_simulator: Simulator) -> Iterator[Simulator]:
    """As new for each test: one process serves a whole module, reset in between."""
    yield _simulator
    requests.post(_simulator.api_url + "/__sim/reset", timeout=10).raise_for_status()


@pytest.fixture
def api(fast: Simulator) -> Iterator[Api]:
    made = Api(fast)
    yield made
    made.close()
