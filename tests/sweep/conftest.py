"""Not the playing: what several cells, or several controls, share."""

from collections.abc import Iterator

import pytest

from llmpod.sim.launch import Simulator
from tests.sweep.field import Field, open_field, start_account


@pytest.fixture(scope="module")
def account() -> Iterator[Simulator]:
    """Wiped for each user."""
    with start_account() as sim:
        yield sim


@pytest.fixture(scope="module")
def field(account: Simulator) -> Iterator[Field]:
    """On which this source is played; each cell is a new user."""
    with open_field(account) as field:
        yield field
