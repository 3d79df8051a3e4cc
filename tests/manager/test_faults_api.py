"""The provider refuses to speak to us (F22, F23; 401, 402, 403, 410, 429): told loudly, and what runs runs on."""

from typing import Any

import pytest
import requests

from tests.manager.passes import alive, creates, edit, until
from tests.manager.test_proxy_process import QUESTION, answered
from tests.support.install import Install
from tests.support.wait import eventually

REFUSALS = [
    ("401", 77, "https://console.runpod.io/user/settings"),
    ("402", 76, "Add credit"),
    ("403", 77, "lacks the right"),
    ("410", 70, "Update llmpod"),
    ("429", 75, "Too many calls"),
]


@pytest.mark.parametrize(("fault", "code", "words"), REFUSALS)
def test_each_refusal_of_a_look_has_its_own_code_and_next_step_and_touches_nothing(
    install: Install, fault: str, code: int, words: str
) -> None:
    pod = until(install, "ready")["instance_id"]
    install.sim.fault("list", fault, times=2)
    said = install.manage().expect(code).out
    assert words in said
    assert fault in said
    assert len(said.strip().splitlines()) == 1
    assert (install.state()["phase"], alive(install)) == ("ready", [pod])


@pytest.mark.parametrize(("fault", "code", "words"), REFUSALS)
def test_each_refusal_of_a_create_has_its_own_code_and_is_not_repeated_at_once(
    install: Install, fault: str, code: int, words: str
) -> None:
    install.sim.fault("create", fault)
    assert words in install.manage().expect(code).out
    install.manage().expect()
    assert (creates(install), alive(install)) == (1, [])
    install.sim.advance(301)
    install.manage().expect()
    assert (creates(install), len(alive(install))) == (2, 1)


# --- F22: the key was revoked while a pod runs
@pytest.mark.parametrize("scope", ["none", "read"])
def test_a_pod_goes_on_serving_when_the_key_loses_its_rights(install: Install, scope: str) -> None:
    install.proxy = True
    pod = until(install, "ready")["instance_id"]
    install.sim.set(key_scope=scope)
    if scope == "none":
        assert "lacks the right" in install.manage().expect(77).out
        eventually(lambda: "lacks the right" in (health(install)["manager_trouble"] or ""))
    assert answered(install, QUESTION).headers["X-Cache"] == "MISS"
    assert (install.state()["phase"], alive(install)) == ("ready", [pod])
    install.sim.set(key_scope="full")
    install.manage().expect()
    eventually(lambda: health(install)["manager_trouble"] is None)


def health(install: Install) -> dict[str, Any]:
    answer: dict[str, Any] = requests.get(f"http://127.0.0.1:{install.port}/health", timeout=5).json()
    return answer


def test_a_deadline_that_a_revoked_key_cannot_carry_out_stays_loud_and_is_carried_out_later(
    install: Install,
) -> None:
    until(install, "ready")
    edit(install, deadline=1.0)
    install.sim.set(key_scope="none")
    for _ in range(2):
        install.manage().expect(77)
        assert install.state()["phase"] == "terminating"
    install.sim.set(key_scope="full")
    until(install, "stopped", most=3)
    assert alive(install) == []


# --- F23: too many calls
def test_a_deadline_comes_before_politeness(install: Install) -> None:
    """The list is refused for too many calls; the pod whose time is over is ended by its id all the same."""
    until(install, "ready")
    edit(install, deadline=1.0)
    install.sim.fault("list", "429", times=2)
    install.manage().expect(75)
    assert alive(install) == []


def test_the_next_create_waits_for_as_long_as_the_provider_says(install: Install) -> None:
    """One call a minute is allowed: the list takes it, the create call is told to wait for the rest of the minute."""
    now = install.sim.state()["now"]
    install.sim.advance(
        120.5 - now % 60
    )  # a minute begins; and the clocks differ by more than is rounded away
    install.sim.set(rate_limits=[1, 7200, 86400], enforce_rate_limits=True)
    assert "Too many calls; wait" in install.manage().expect(75).out
    left = install.state()["next_try_at"] - install.sim.state()["now"]
    assert 40 < left < 62
    install.sim.set(enforce_rate_limits=False)
    install.sim.advance(left - 4)
    install.manage().expect()
    assert creates(install) == 1, "too early"
    install.sim.advance(6)
    install.manage().expect()
    assert (creates(install), len(alive(install))) == (2, 1)


def test_a_pass_with_nothing_to_do_makes_at_most_three_calls(install: Install) -> None:
    until(install, "ready")
    before = install.sim.requests()
    install.manage().expect()
    made = install.sim.requests()[len(before) :]
    assert len(made) <= 3
    assert [r["path"] for r in made].count("/v2/pods") == 1, "one list"


def test_a_shutdown_outlasts_too_many_calls(install: Install) -> None:
    until(install, "ready")
    install.sim.fault("any", "429", times=6)
    install.manage("--shutdown").expect()
    assert alive(install) == []


def test_health_of_the_proxy_is_no_lie_while_the_key_is_revoked(install: Install) -> None:
    """What the proxy says of the pod comes from the pod's state, which an API refusal does not change."""
    install.proxy = True
    until(install, "ready")
    answered(install, QUESTION)
    install.sim.fault("list", "401")
    install.manage().expect(77)
    health = requests.get(f"http://127.0.0.1:{install.port}/health", timeout=5).json()
    assert health["llm_running"] is True
