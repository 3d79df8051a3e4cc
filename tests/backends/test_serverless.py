"""The backend `runpod_serverless` against the simulator on real sockets: opened, woken once, watched, parked."""

from llmpod.cli.show import status_document
from llmpod.model import Direction, Phase
from llmpod.sim.launch import Simulator
from tests.backends.endpoints import MODELS, Opened, Site, opened, sim, site
from tests.support.wait import eventually

__all__ = ["opened", "sim", "site"]


def test_it_is_opened_woken_and_parked(site: Site) -> None:
    site.until_phase(Phase.READY)
    assert site.limits == (0, 1)
    assert "idle" in status_document(site.plane)["models"]["default"]["load"]["said"]
    site.order(Direction.DOWN)
    site.until_phase(Phase.STOPPED)
    assert site.limits == (0, 0)
    assert site.seen["list"] == []


def test_workers_that_stay_are_asked_for_by_limits_alone(opened: Opened) -> None:
    site = opened(min_workers=1, max_workers=2)
    site.pass_()
    assert site.limits == (1, 2)
    eventually(lambda: site.seen["workers"]["idle"] == 1, within=10)
    assert site.calls(MODELS) == 0
    site.until_phase(Phase.READY)


def test_the_accounts_own_key_is_refused_as_the_endpoints(opened: Opened, sim: Simulator) -> None:
    site = opened(key=sim.key)
    assert "account's own key" in str(site.pass_().error)
    assert site.limits == (0, 0)


def test_a_key_file_that_others_may_read_is_refused(site: Site) -> None:
    (site.directory / "endpoint_key").chmod(0o644)
    assert "Others may read" in str(site.pass_().error)
    assert site.limits == (0, 0)


def test_a_cold_start_is_waited_for_and_not_asked_for_again(site: Site) -> None:
    site.behave(cold_start_seconds=600.0)
    for _ in range(5):
        site.pass_()
    assert "1 initializing; 1 request in the queue" in site.record.error
    assert site.calls(MODELS) == 2, "one without a key, which is refused at the door, and one that wakes"
    site.sim.advance(600.0)
    site.until_phase(Phase.READY)


def test_passes_neither_wake_nor_keep_awake_what_is_ready(site: Site) -> None:
    site.until_phase(Phase.READY)
    site.sleeps()
    before = site.calls(MODELS)
    for _ in range(3):
        site.pass_()
    assert site.record.phase is Phase.READY
    assert site.calls(MODELS) == before
    assert status_document(site.plane)["models"]["default"]["load"]["said"] == "workers: none"


def test_it_is_down_only_when_its_workers_have_ended(site: Site) -> None:
    site.behave(drain_seconds=600.0)
    site.until_phase(Phase.READY)
    site.order(Direction.DOWN)
    for _ in range(3):
        site.pass_()
    assert site.record.phase is Phase.TERMINATING
    site.sim.advance(600.0)
    site.until_phase(Phase.STOPPED)


def test_one_that_is_open_without_an_order_is_parked(site: Site) -> None:
    site.until_phase(Phase.READY)
    site.order(Direction.DOWN)
    site.until_phase(Phase.STOPPED)
    site.console(3)
    site.pass_()
    assert site.limits == (0, 0)


def test_one_that_was_never_used_is_nobodys_business(site: Site) -> None:
    site.console(3)
    site.order(Direction.DOWN)
    for _ in range(2):
        site.pass_()
    assert site.limits == (0, 3)


def test_another_endpoint_in_the_configuration_leaves_none_open(opened: Opened) -> None:
    first = opened()
    first.until_phase(Phase.READY)
    second = opened()
    second.until_phase(Phase.READY)
    assert first.limits == (0, 0)
    assert second.limits == (0, 1)
    assert second.record.gpu == f"endpoint {second.id}"


def test_workers_cost_what_the_catalog_says(site: Site) -> None:
    site.until_phase(Phase.READY)
    site.pass_()
    assert (site.record.usd_per_hour or 0.0) > 0
    site.sleeps()
    site.pass_()
    assert site.record.usd_per_hour == 0


def test_limits_that_are_others_business_are_left_alone(opened: Opened) -> None:
    site = opened(park=False)
    assert "is parked" in str(site.pass_().error)
    site.console(3)
    site.order(Direction.UP)
    site.until_phase(Phase.READY)
    site.order(Direction.DOWN)
    site.until_phase(Phase.STOPPED)
    assert site.limits == (0, 3)
    assert site.calls(site.id, "PATCH") == 1, "the person's"


def test_one_that_balances_load_has_other_addresses(site: Site) -> None:
    site.behave(kind="LOAD_BALANCER")
    site.until_phase(Phase.READY)
    assert str(site.record.base_url).endswith("/openai")
    assert site.calls("/health") == 0


def test_an_endpoint_that_does_not_exist_is_named(opened: Opened) -> None:
    site = opened(endpoint_id="nosuch")
    assert "no serverless endpoint nosuch" in str(site.pass_().error)
