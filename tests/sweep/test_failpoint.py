"""The failpoint itself, from outside."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from llmpod.lifecycle.failpoint import VARIABLE
from llmpod.sim.launch import Simulator
from tests.support.forks import Forks
from tests.support.install import Install
from tests.support.process import Finished, run


@pytest.fixture
def install(state_dir: Path, env: dict[str, str], account: Simulator, forks: Forks) -> Install:
    account.reset()
    return Install(state_dir, account, env, start=forks.run)


def a_pass(install: Install, point: str, start: Callable[..., Finished] | None = None) -> Finished:
    return (start or install.start)(install.argv(), env={**install.environ, VARIABLE: point})


def test_zero_names_every_effect_and_kills_nothing(install: Install) -> None:
    said = a_pass(install, "0").expect().err
    assert f"{VARIABLE}: before create\n{VARIABLE}: created\n" in said
    assert len(install.sim.alive()) == 1


def test_the_nth_effect_is_the_last(install: Install) -> None:
    named = a_pass(install, "3", run).expect(-signal.SIGKILL).err  # as cron starts it
    assert named.count(VARIABLE) == 3
    assert install.sim.alive() == []


def test_nothing_is_said_without_it(install: Install) -> None:
    assert VARIABLE not in install.manage().expect().err


@pytest.mark.parametrize("text", ["x", "-1", "1.5"])
def test_what_is_no_number_is_refused(install: Install, text: str) -> None:
    assert VARIABLE in a_pass(install, text).expect(78).err
    assert install.sim.requests() == []
