"""Clocks that are wrong and machines that sleep (F35, F36): a deadline is kept within a minute, and not before it."""

import pytest

from tests.manager.passes import alive, creates, edit, pass_deadline, under_faketime, until
from tests.support.install import Install

MINUTE = 60.0


# --- F35: asleep when the deadline passes
def test_a_deadline_that_passed_while_the_manager_slept_is_carried_out_by_the_first_pass(
    install: Install,
) -> None:
    until(install, "ready")
    install.sim.advance(9 * 3600)
    install.manage().expect()
    assert alive(install) == []
    assert install.state()["down_reason"] == "the runtime limit was reached (by expiry)"
    until(install, "stopped", most=3)
    assert creates(install) == 1


@pytest.mark.component
def test_both_clocks_went_on_while_the_laptop_was_closed(install: Install) -> None:
    until(install, "ready")
    install.sim.advance(9 * 3600)
    said = under_faketime(install, "+9h", "--verbose", asleep=True).expect()
    assert "clock" not in said.out
    assert alive(install) == []


@pytest.mark.component
def test_after_the_sleep_a_pod_is_ended_although_the_list_is_refused(install: Install) -> None:
    """No time from the provider: the age of the boot says that the time did pass."""
    until(install, "ready")
    install.sim.advance(9 * 3600)
    install.sim.fault("list", "500", times=2)
    under_faketime(install, "+9h", asleep=True).expect(75)
    assert alive(install) == []


# --- F36: this machine's clock is wrong
@pytest.mark.component
@pytest.mark.parametrize("offset", ["-1h", "+1d", "+3y"])
def test_a_clock_that_jumps_ends_nothing_early_and_nothing_late(install: Install, offset: str) -> None:
    """What counts is the provider's time since the provider's creation of the pod."""
    pod = until(install, "ready")
    left = pod["deadline"] - install.sim.state()["now"]
    install.sim.advance(left - MINUTE)
    for _ in range(2):
        said = under_faketime(install, offset, "--verbose").expect()
        assert "clock is" in said.out
        assert (install.state()["phase"], alive(install)) == ("ready", [pod["instance_id"]])
    install.sim.advance(2 * MINUTE)
    under_faketime(install, offset).expect()
    assert alive(install) == []


@pytest.mark.component
@pytest.mark.parametrize("offset", ["-1h", "+1d"])
def test_a_pod_that_is_made_under_a_wrong_clock_gets_the_right_deadline(
    install: Install, offset: str
) -> None:
    """In the state and in the pod itself, where the dead-man's switch goes by the pod's own, right clock."""
    under_faketime(install, offset).expect()
    now = install.sim.state()["now"]
    record = install.state()
    assert 3600 - MINUTE < record["deadline"] - now <= 3600 + MINUTE
    assert 3600 - MINUTE < record["switch_at"] - now <= 3600 + MINUTE
    env = install.sim.alive()[0]["config"]["env"]
    armed = [float(v) for v in env.values() if v.replace(".", "").isdigit() and abs(float(v) - now) < 1e6]
    assert armed == [pytest.approx(record["switch_at"], abs=1)]


@pytest.mark.component
def test_the_clock_jumps_back_and_forth_between_passes(install: Install) -> None:
    pod = until(install, "ready")["instance_id"]
    for offset in ("+1d", "-1h", "+0", "+1d"):
        under_faketime(install, offset).expect()
        assert (install.state()["phase"], alive(install)) == ("ready", [pod])
    pass_deadline(install)
    install.manage().expect()
    assert (alive(install), creates(install)) == ([], 1)


@pytest.mark.component
@pytest.mark.parametrize(("fault", "times", "code"), [("500", 2, 75), ("401", 1, 77), ("429", 2, 75)])
def test_a_clock_that_jumped_ends_nothing_while_the_list_is_refused(
    install: Install, fault: str, times: int, code: int
) -> None:
    """No time from the provider: the age of the boot says that no day has passed since it last told."""
    pod = until(install, "ready")["instance_id"]
    install.sim.fault("list", fault, times=times)
    under_faketime(install, "+1d").expect(code)
    install.manage().expect()
    assert (install.state()["phase"], alive(install)) == ("ready", [pod])


@pytest.mark.component
def test_a_wrong_clock_without_any_answer_ends_nothing_for_good(install: Install) -> None:
    """Nobody says what time it is; once somebody does, the run that has time left goes on."""
    pod = until(install, "ready")["instance_id"]
    install.sim.fault("list", "dropped", times=2)
    under_faketime(install, "+1d").expect(75)
    install.manage().expect()
    assert (install.state()["phase"], alive(install)) == ("ready", [pod])


@pytest.mark.component
def test_a_plan_under_a_wrong_clock_is_what_a_pass_would_do(install: Install) -> None:
    until(install, "ready")
    assert "would probe" in under_faketime(install, "+1d", "plan").expect().out


@pytest.mark.component
def test_a_create_that_was_unclear_under_a_wrong_clock_is_resolved_under_the_right_one(
    install: Install,
) -> None:
    install.sim.fault("create", "created_then_500")
    under_faketime(install, "+1d").expect(75)
    until(install, "ready")
    assert (len(alive(install)), creates(install)) == (1, 1)
    edit(install, deadline=1.0)
    install.manage().expect()
    assert alive(install) == []
