"""Starts that cannot be: what requests and operators are told of them, and what is left alone meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from llmpod.sim.launch import Simulator
from tests.manager.test_on_request import ask, begin, begun, request
from tests.support.desk import Desk
from tests.support.install import FAST, Install
from tests.support.wait import eventually


def test_a_program_that_is_gone_is_named_without_all_of_its_path(
    state_dir: Path, env: dict[str, str]
) -> None:
    desk = Desk(state_dir, env)
    try:
        begin(desk, ["no-such-server"], max_restarts=0)
        told = ask(desk, "hi").json["error"]["message"]
        assert "there is no program 'no-such-server' in PATH" in told
        assert ".." not in told
    finally:
        desk.manage("--shutdown").expect()


@pytest.fixture
def install(state_dir: Path, env: dict[str, str]) -> Iterator[Install]:
    with Simulator.start(pods="inline", behavior=FAST) as simulator:
        made = Install(state_dir, simulator, env, proxy=True)
        yield made
        made.manage("--shutdown", within=90)


def test_an_operator_does_not_stop_what_only_a_person_may_start(
    install: Install, env: dict[str, str]
) -> None:
    begun(install, env)
    install.manage("--no-proxy", "up").expect()
    install.passes_until("ready")
    eventually(lambda: request(install, "hi").status_code == 200, within=30)
    (pod,) = install.sim.alive()
    url = f"http://127.0.0.1:{install.port}/admin/restart"
    refused = requests.post(url, json={"model": "default"}, timeout=30)
    assert refused.status_code == 402, refused.text
    assert "it was not stopped" in refused.json()["error"]["message"]
    install.manage("--no-proxy").expect()
    assert [alive["id"] for alive in install.sim.alive()] == [pod["id"]]
    assert request(install, "more").status_code == 200
