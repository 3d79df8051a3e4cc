"""A create call that goes wrong (F14 to F18): no second pod while the first may exist, and none that nobody knows."""

import pytest

from tests.manager.passes import alive, calls, creates, overlapping, under_faketime, until
from tests.support.install import Install


# --- F15: no answer at all
@pytest.mark.component
def test_a_create_call_that_is_never_answered_is_looked_for_by_its_name(install: Install) -> None:
    """The clock of the manager runs 60 times as fast, so its limit of 90 s for the call passes in 1.5 s."""
    install.write(create_grace_seconds=600)
    install.sim.fault("create", "created_then_hang")
    said = under_faketime(install, "+0 x60")
    assert "did not answer the create call" in said.expect(75).out
    assert install.state()["phase"] == "unknown"
    assert until(install, "ready")["instance_id"] == alive(install)[0]
    assert creates(install) == 1


@pytest.mark.parametrize("fault", ["dropped", "garbage", "html", "500"])
def test_a_create_call_without_effect_and_without_answer_is_tried_again_after_its_grace(
    install: Install, fault: str
) -> None:
    """Seen from here it is no other case than a pod that is listed late."""
    install.write(create_grace_seconds=600)
    install.sim.fault("create", fault)
    install.manage().expect(75)
    install.sim.advance(590)
    install.manage().expect()
    assert (install.state()["phase"], creates(install)) == ("unknown", 1)
    install.sim.advance(11)
    until(install, "ready")
    assert (len(alive(install)), creates(install)) == (1, 2)


# --- F16: provably not created
def test_after_no_capacity_the_intent_is_closed_and_the_next_try_waits(install: Install) -> None:
    install.sim.set(no_capacity=["NVIDIA L4", "NVIDIA A40"])
    install.manage().expect(75)
    record = install.state()
    assert (record["phase"], record["name"], record["intent_at"]) == ("stopped", "", None)
    install.sim.set(no_capacity=[])
    install.manage().expect()
    assert alive(install) == [], "the back-off is not over"
    install.sim.advance(200)
    until(install, "ready")
    assert len(alive(install)) == 1


def test_a_phantom_that_was_answered_and_never_exists_does_not_hold_the_run_up(install: Install) -> None:
    install.write(on_vanished="restart")
    install.sim.fault("create", "phantom")
    install.manage().expect()
    assert alive(install) == []
    install.sim.advance(3)
    until(install, "ready")
    assert (len(alive(install)), creates(install)) == (1, 2)


# --- F17: listed late
@pytest.mark.parametrize("appears", [29, 118, 590])
def test_a_pod_that_is_listed_late_is_found_within_the_grace(install: Install, appears: int) -> None:
    install.write(create_grace_seconds=600)
    install.sim.set(listing_lag_seconds=appears)
    install.sim.fault("create", "created_then_500")
    install.manage().expect(75)
    begun = install.state()["intent_at"]
    for moment in (30, 120, 595):
        install.sim.advance(begun + moment - install.sim.state()["now"])
        install.manage().expect()
        if moment >= appears:
            break
        assert install.state()["phase"] == "unknown"
    assert install.state()["instance_id"] == alive(install)[0]
    assert creates(install) == 1


def test_a_pod_that_is_listed_after_its_grace_is_ended_by_the_pass_that_sees_it(install: Install) -> None:
    install.sim.set(listing_lag_seconds=300)
    install.sim.fault("create", "created_then_500")
    install.manage().expect(75)
    late = alive(install)
    install.sim.set(listing_lag_seconds=0)
    install.sim.advance(100)
    known = until(install, "ready")["instance_id"]
    assert set(alive(install)) == {*late, known}, "nobody could know of the first one"
    install.sim.advance(200)
    assert late[0] in install.manage("--verbose").expect().out
    assert alive(install) == [known]


def test_a_pod_that_is_listed_only_after_the_shutdown_is_ended_by_the_next_pass(install: Install) -> None:
    install.sim.set(listing_lag_seconds=300)
    install.sim.fault("create", "created_then_500")
    install.manage().expect(75)
    install.manage("--shutdown").expect()
    install.sim.advance(301)
    install.manage().expect()
    assert alive(install) == []


# --- F18: a listing that lies
@pytest.mark.parametrize("fault", ["500", "garbage", "html", "dropped", "429"])
def test_nothing_is_concluded_from_a_listing_that_failed(install: Install, fault: str) -> None:
    pod = until(install, "ready")["instance_id"]
    before = install.state()
    install.sim.fault("list", fault, times=2)
    install.manage().expect(75)
    after = install.state()
    assert {**after, "uptime_seconds": 0} == {**before, "uptime_seconds": 0}
    assert (alive(install), creates(install)) == ([pod], 1)


def test_nothing_is_concluded_from_a_listing_that_broke_off(install: Install) -> None:
    """One page holds one pod; the first arrives, the second one fails, twice."""
    pod = until(install, "ready")["instance_id"]
    foreign = {"name": "newest", "image": "x/y:1", "gpu": {"id": "NVIDIA L4", "count": 1}}
    install.console("POST", "/v2/pods", foreign)
    install.sim.set(page_size=1)
    install.sim.fault("list", "slow=0")
    install.sim.fault("list", "500", times=2)
    install.manage().expect(75)
    assert (install.state()["instance_id"], install.state()["missing_since"]) == (pod, None)
    assert len(alive(install)) == 2


def test_a_pod_is_gone_only_when_list_and_look_up_say_so_in_two_passes(install: Install) -> None:
    install.write(create_grace_seconds=60, on_vanished="restart")
    pod = until(install, "ready")["instance_id"]
    install.sim.advance(61)
    install.manage().expect()
    install.sim.fault("list", "empty")
    install.manage().expect()
    assert install.state()["missing_since"] is None, "the look-up found it"
    install.sim.fault("list", "empty")
    install.sim.fault("get", "404")
    install.manage().expect()
    assert (install.state()["phase"], install.state()["instance_id"]) == ("unhealthy", pod)
    until(install, "ready")
    assert (alive(install), creates(install)) == ([pod], 1)


def test_what_existed_never_overlapped(install: Install) -> None:
    """All unclear outcomes of this file one after the other, in one installation."""
    install.write(create_grace_seconds=5)
    for fault in ("created_then_500", "dropped", "created_then_garbage"):
        install.sim.fault("create", fault)
        install.manage("up")
        install.sim.advance(6)
        until(install, "ready")
        install.manage("down").expect()
    assert overlapping(install.sim.state()["pods"]) == []
    assert len(calls(install, "DELETE")) >= 3
