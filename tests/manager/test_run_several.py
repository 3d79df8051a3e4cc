"""A person's `run`, `up` and `down` without names, where several models share one place."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.manager.test_several_models import ask, begin, starts
from tests.support.desk import Desk


@pytest.fixture
def desk(state_dir: Path, env: dict[str, str]) -> Iterator[Desk]:
    made = Desk(state_dir, env)
    yield made
    made.manage("--shutdown").expect()


def test_up_leaves_no_member_of_a_group_down_and_the_refusal_before_it_names_the_way(desk: Desk) -> None:
    begin(desk)
    desk.manage("down").expect()
    refused = ask(desk, "b", "one")
    message = refused.json["error"]["message"]
    assert refused.status == 503
    assert "b was ordered down (by down)" in message
    assert "python3 manage_pod.py up b" in message
    assert str(desk.directory) not in message, "callers are not told our paths"
    desk.manage("--no-proxy", "up").expect()
    orders = json.loads((desk.directory / ".llmpod" / "pod_state" / "orders.json").read_text())
    assert {name: orders[name]["by"] for name in "abc"} == {"a": "up", "b": "idle", "c": "idle"}
    assert ask(desk, "c", "two").status == 200
    assert starts(desk)["org/c"] == 1
