"""The backend `runpod_serverless` when something goes wrong: counts that lie, refusals, calls without an answer."""

import pytest
import requests

from llmpod.model import Direction, Phase
from tests.backends.endpoints import MODELS, Site, opened, sim, site

__all__ = ["opened", "sim", "site"]


@pytest.mark.parametrize("lie", ["idle", "nothing"])
def test_counts_that_lie_make_nothing_ready(site: Site, lie: str) -> None:
    site.behave(health_lies=lie, cold_start_seconds=600.0)
    for _ in range(3):
        site.pass_()
    assert site.record.phase is not Phase.READY
    if lie == "nothing":
        assert site.calls(MODELS) == 2, "it is woken once in two minutes, whatever it says"


def test_counts_that_contradict_themselves_are_looked_into(site: Site) -> None:
    """Requests wait although a worker is said to be idle: it is asked for real, which wakes nothing that sleeps."""
    site.until_phase(Phase.READY)
    site.sleeps()
    site.behave(health_lies="idle", cold_start_seconds=600.0)
    key = (site.directory / "endpoint_key").read_text()
    with pytest.raises(requests.Timeout):  # a user's request
        requests.get(
            f"{site.record.base_url}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=0.5
        )
    site.pass_()
    assert site.record.phase is Phase.UNHEALTHY


def test_workers_without_a_machine_are_told(site: Site) -> None:
    site.behave(throttled=True)
    for _ in range(2):
        site.pass_()
    assert "1 throttled; 1 request in the queue" in site.record.error
    site.behave(throttled=False)
    site.until_phase(Phase.READY)


def test_workers_that_are_all_broken_are_started_anew(site: Site) -> None:
    site.until_phase(Phase.READY)
    site.behave(unhealthy=True)
    site.until(lambda: site.limits == (0, 0))
    assert "1 unhealthy" in site.record.error
    site.behave(unhealthy=False)
    site.until_phase(Phase.READY)


def test_a_key_that_was_revoked_is_told_and_ends_it(site: Site) -> None:
    site.until_phase(Phase.READY)
    site.behave(refuses=True)
    site.pass_()
    assert site.record.phase is Phase.UNHEALTHY
    assert "401" in site.record.error
    site.until(lambda: site.limits == (0, 0))


@pytest.mark.parametrize("fault", ["429", "500", "dropped"])
def test_counts_that_cannot_be_had_for_a_moment_change_nothing(site: Site, fault: str) -> None:
    site.until_phase(Phase.READY)
    site.sim.fault("invoke", fault, times=2)
    site.pass_()
    assert site.record.phase is Phase.READY


@pytest.mark.parametrize("fault", ["done_then_500", "done_then_dropped", "dropped", "500"])
def test_a_call_without_a_clear_answer_is_not_repeated_blindly(site: Site, fault: str) -> None:
    site.sim.fault("limit", fault)
    site.pass_()
    assert site.record.phase is Phase.UNKNOWN
    assert site.calls(site.id, "PATCH") == 1
    site.until_phase(Phase.READY)


def test_a_refusal_for_a_while_is_heeded(site: Site) -> None:
    site.sim.fault("limit", "429")
    site.pass_()
    assert site.record.phase is Phase.STOPPED
    assert site.record.next_try_at is not None
    site.pass_()
    assert site.calls(site.id, "PATCH") == 1


@pytest.mark.parametrize("fault", ["500", "429", "done_then_dropped"])
def test_parking_that_failed_is_done_by_the_next_pass(site: Site, fault: str) -> None:
    site.until_phase(Phase.READY)
    site.sim.fault("limit", fault)
    site.order(Direction.DOWN)
    site.pass_()
    site.until_phase(Phase.STOPPED)
    assert site.limits == (0, 0)
