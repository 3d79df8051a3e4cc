"""`pass --for`: between two runs of the scheduler nothing that is due waits for the next one."""

import signal
import time

from tests.manager.passes import alive, until
from tests.support.forks import Forks
from tests.support.install import Install


def bring_near(install: Install, seconds: float) -> float:
    """The deadline of the run, which is now so many seconds away."""
    deadline: float = install.state()["deadline"]
    install.sim.advance(deadline - install.sim.state()["now"] - seconds)
    return deadline


def test_a_deadline_between_two_runs_is_kept_and_the_end_is_confirmed(install: Install) -> None:
    until(install, "ready")
    deadline = bring_near(install, 4)
    begin = time.monotonic()
    install.manage("pass", "--for", "50", within=80).expect()
    assert alive(install) == []
    pods = install.sim.state()["pods"]
    assert len(pods) == 1, "a passed deadline is a sticky down"
    assert -2 < pods[0]["terminated_at"] - deadline < 30, "half of what a living manager may overrun"
    assert install.state()["phase"] == "stopped"
    assert time.monotonic() - begin < 40, "it ends when nothing is due any more"


def test_without_anything_due_it_ends_at_once(install: Install) -> None:
    until(install, "ready")
    begin = time.monotonic()
    install.manage("pass", "--for", "60").expect()
    assert time.monotonic() - begin < 10
    install.manage("--shutdown").expect()
    begin = time.monotonic()
    install.manage("pass", "--for", "60").expect()
    assert time.monotonic() - begin < 10


def test_while_it_stays_others_may_pass_and_a_signal_ends_it(install: Install, forks: Forks) -> None:
    until(install, "ready")
    bring_near(install, 30)
    with forks.running(install.argv("pass", "--for", "60"), env=install.environ) as staying:
        staying.says("until")
        assert "Another pass" not in install.manage().out
        assert staying.code is None
        staying.signal(signal.SIGTERM)
        assert staying.wait(within=2) == -signal.SIGTERM
        assert staying.err == ""
    assert alive(install)


def test_it_ends_when_another_pass_has_done_all_there_was_to_do(install: Install, forks: Forks) -> None:
    until(install, "ready")
    bring_near(install, 60)
    with forks.running(install.argv("pass", "--for", "100"), env=install.environ) as staying:
        staying.says("until")
        install.manage("down").expect()
        assert staying.wait(within=4) == 0


def test_an_edited_configuration_counts_from_the_next_pass_on(install: Install, forks: Forks) -> None:
    until(install, "ready")
    bring_near(install, 10)
    with forks.running(install.argv("pass", "--for", "40"), env=install.environ) as staying:
        staying.says("until")
        install.write(runtime_secnds=60)
        assert staying.wait(within=40) == 78
        assert "runtime_secnds" in staying.out
    assert alive(install) == [], "the watch goes on by the last good configuration"


def test_no_other_time_is_taken(install: Install) -> None:
    for wrong in ("-1", "1h", "99999"):
        assert "not a number of seconds" in install.manage("pass", "--for", wrong).expect(2).err
