"""A delete that goes wrong (F19 to F21), a shutdown that meets a start (F34): nothing is left, or it is told."""

import os
import subprocess

import pytest

from tests.manager.passes import alive, calls, creates, pass_deadline, until
from tests.manager.test_endings import at_a_terminal, read_until
from tests.support.forks import Forks
from tests.support.install import Install
from tests.support.wait import eventually


# --- F19: refused or lost
@pytest.mark.parametrize("fault", ["500", "dropped", "429"])
def test_a_delete_that_fails_is_ordered_again_by_every_pass_and_stuck_is_told(
    install: Install, fault: str
) -> None:
    pod = until(install, "ready")["instance_id"]
    pass_deadline(install)
    install.sim.fault("delete", fault, times=100)
    install.manage().expect(75)
    first = install.state()
    assert (first["phase"], first["instance_id"]) == ("terminating", pod)
    before = len(calls(install, "DELETE"))
    install.sim.advance(125)
    told = install.manage("--verbose").expect(75)
    assert f"pod {pod} is still there" in told.out
    assert install.state()["ending_at"] == first["ending_at"]
    assert len(calls(install, "DELETE")) > before


def test_a_delete_that_fails_for_hours_is_still_ordered_and_then_done(install: Install) -> None:
    until(install, "ready")
    pass_deadline(install)
    install.sim.fault("delete", "500", times=6)  # a pass asks twice
    for _ in range(3):
        install.manage().expect(75)
        install.sim.advance(3600)
    until(install, "stopped", most=3)
    assert alive(install) == []


@pytest.mark.parametrize("fault", ["deleted_then_500", "deleted_then_dropped", "deleted_then_garbage"])
def test_a_delete_that_was_done_and_not_said_is_believed_when_the_listing_shows_it(
    install: Install, fault: str
) -> None:
    until(install, "ready")
    install.sim.advance(10)  # beyond the time in which an absence may be lag
    install.sim.set(delete_lag_seconds=20)
    install.sim.fault("delete", fault)
    pass_deadline(install)
    install.manage()
    assert install.state()["phase"] == "terminating"
    install.sim.advance(20)
    install.manage()
    install.sim.advance(20)  # what was not accepted must stay away for a while
    until(install, "stopped", most=2)


# --- F20: "no such pod"
def test_404_on_delete_soon_after_the_create_is_no_proof(install: Install) -> None:
    """The run is over while neither list nor look-up nor delete know the new pod yet."""
    install.write(create_grace_seconds=600, runtime_seconds=60)
    install.sim.set(listing_lag_seconds=300)
    install.manage().expect()
    pass_deadline(install)
    install.sim.fault("delete", "404", times=3)
    for _ in range(3):
        install.manage().expect()
        assert (install.state()["phase"], len(alive(install))) == ("terminating", 1)
    until(install, "stopped", most=3)
    assert alive(install) == []


def test_404_on_delete_counts_when_lag_can_no_longer_explain_it(install: Install) -> None:
    install.write(create_grace_seconds=60, runtime_seconds=60)
    pod = until(install, "ready")["instance_id"]
    install.console("DELETE", f"/v2/pods/{pod}")
    pass_deadline(install)
    install.manage()
    assert install.state()["phase"] == "terminating", "one look can be wrong as a whole"
    install.sim.advance(25)
    until(install, "stopped", most=2)


# --- F21: accepted, and still listed as running
def test_a_pod_that_is_listed_after_its_delete_is_deleted_again_and_told(install: Install) -> None:
    pod = until(install, "ready")["instance_id"]
    pass_deadline(install)
    install.sim.set(delete_lag_seconds=400, delete_lag_get=True)
    for _ in range(3):
        before = len(calls(install, "DELETE"))
        install.manage().expect()
        assert install.state()["phase"] == "terminating"
        assert len(calls(install, "DELETE")) == before + 1
    install.sim.advance(125)
    assert f"pod {pod} is still there" in install.manage("--verbose").expect().out
    assert f"pod {pod} is still there" not in install.manage("--verbose").expect().out, "told once"
    install.sim.advance(300)
    until(install, "stopped", most=2)


# --- F34: a shutdown that meets a start
@pytest.mark.parametrize("fault", ["slow=1", "created_then_slow=1", "created_then_500"])
def test_a_shutdown_during_the_create_call_of_a_pass_leaves_nothing(
    install: Install, forks: Forks, fault: str
) -> None:
    install.sim.fault("list", "slow=0.5")
    install.sim.fault("create", fault)
    with forks.running(install.argv(), env=install.environ) as starting:
        eventually(lambda: calls(install, "GET") or starting.code is not None)
        install.manage("--shutdown").expect()
        starting.wait()
    assert alive(install) == []
    install.manage().expect()
    assert (alive(install), install.state()["phase"]) == ([], "stopped")


def test_a_shutdown_ends_a_start_that_a_person_follows_at_a_terminal(install: Install) -> None:
    install.sim.set(container_seconds=1000.0)
    with at_a_terminal(install, "up") as (process, master):
        read_until(master, "created")
        install.manage("--shutdown").expect()
        assert process.wait(30) != 0
        said = os.read(master, 65536).decode(errors="replace")
        os.close(master)
    assert "by --shutdown" in said
    assert (alive(install), creates(install)) == ([], 1)


def test_a_start_after_the_shutdown_has_begun_waits_for_it_and_is_no_order(install: Install) -> None:
    """The passes of cron go on while the pod is being ended; none of them turns the order round."""
    until(install, "ready")
    install.sim.set(delete_lag_seconds=1.5)
    ending = subprocess.Popen(
        install.argv("--shutdown"), env=install.environ, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    while ending.poll() is None:
        install.manage().expect()
    assert ending.returncode == 0
    assert (alive(install), creates(install)) == ([], 1)
