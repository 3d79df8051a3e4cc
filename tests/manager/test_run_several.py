"""A person's `run`, `up` and `down` without names, where several models share one place."""

import json

from tests.manager.test_several_models import ask, begin, model, write
from tests.support.desk import Desk
from tests.support.process import PYTHON, running
from tests.support.source import ROOT
from tests.support.wait import eventually


def test_up_leaves_no_member_of_a_group_down_and_the_refusal_before_it_names_the_way(desk: Desk) -> None:
    begin(desk)
    desk.manage("down").expect()
    refused = ask(desk, "b", "one")
    message = refused.json["error"]["message"]
    assert refused.status == 503
    assert "b was ordered down (by down)" in message
    assert "python3 manage_pod.py --config FILE up b" in message
    assert str(desk.directory) not in message, "callers are not told our paths"
    desk.manage("--no-proxy", "up").expect()
    orders = json.loads((desk.directory / ".llmpod" / "pod_state" / "orders.json").read_text())
    assert {name: orders[name]["by"] for name in "abc"} == {"a": "up", "b": "idle", "c": "idle"}
    eventually(lambda: ask(desk, "a", "two").status == 200, within=60, every=0.5)
    assert ask(desk, "c", "two").status == 200
    assert desk.starts(2)["org/c"] == 1


def command(desk: Desk, *words: str) -> list[str]:
    config = str(desk.directory / "pod_config.json")
    return [PYTHON, str(ROOT / "manage_pod.py"), "--config", config, *words]


def test_run_has_one_of_a_group_ready_and_the_others_start_with_a_request(desk: Desk) -> None:
    write(desk, idle_seconds=1)
    with running(command(desk, "run", "--yes"), env=desk.env) as run:
        run.says("Ctrl-C stops", within=60)
        assert "ready, here is your first answer" in run.out
        assert "b, c: start with the first request" in run.out
        assert desk.starts(1) == {"org/a": 1}
        assert ask(desk, "b", "one").status == 200
        run.says("b: ", within=60)  # a look of its own, with all of them asleep since
        assert "The run is over" not in run.out
        assert ask(desk, "c", "one").status == 200
        assert run.stop(within=60) == 0
        assert "nothing is left running" in run.out
    assert not [p for p in desk.servers() if "sim.vllm" in p.command]


def test_run_that_fails_takes_nothing_down_that_ran_before(desk: Desk) -> None:
    write(desk, start="always", groups=None, models={"a": model("org/a")})

    def answers() -> bool:
        desk.manage().expect()
        return ask(desk, "org/a", "one").status == 200

    eventually(answers, within=60, every=0.1)
    broken = {"model": "org/broken", "process": {"command": ["no-such-server"]}, "max_restarts": 0}
    write(desk, start="always", groups=None, models={"a": model("org/a"), "broken": broken})
    with running(command(desk, "run", "--yes"), env=desk.env) as run:
        assert run.wait(within=60) not in (0, None)
        assert "no-such-server" in run.err
        assert "a ran before and goes on" in run.out
        assert "nothing is left running" not in run.out
    assert desk.starts(1) == {"org/a": 1}
    assert ask(desk, "org/a", "two").status == 200
