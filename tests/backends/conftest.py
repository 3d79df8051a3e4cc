"""Not the account itself (switched.py): one simulator for the tests of a module, as new for each."""

from collections.abc import Iterator

import pytest

from llmpod.sim.launch import Simulator
from tests.backends.switched import KEPT, Account


@pytest.fixture(scope="module")
def _switching() -> Iterator[Simulator]:
    with Simulator.start(pods="inline", behavior=KEPT) as sim:
        yield sim


@pytest.fixture
def runpod(_switching: Simulator) -> Iterator[Account]:
    """An account in which machines take no time, and scripts run."""
    yield Account(_switching)
    _switching.reset()
