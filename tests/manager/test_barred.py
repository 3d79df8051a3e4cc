"""A model that no request may start, through the front door: refused at once, and no other one is stopped for it."""

import json

from tests.manager.test_on_request import begin as begin_one
from tests.manager.test_on_request import get
from tests.manager.test_several_models import ask, begin
from tests.proxy.front import Client, Reply
from tests.support.desk import Desk
from tests.support.wait import eventually


def admin(desk: Desk, way: str, model: str) -> Reply:
    """What an operator is answered."""
    with Client(desk.port) as client:
        body = f'{{"model": "{model}"}}'.encode()
        client.send("POST", f"/admin/{way}", body, {"Content-Type": "application/json"})
        return client.reply()


def test_a_model_that_a_person_ordered_down_costs_no_other_one_its_place(desk: Desk) -> None:
    begin(desk)
    desk.manage("down", "b").expect()
    assert ask(desk, "a", "one").status == 200
    started = admin(desk, "start", "b")
    refused = ask(desk, "b", "one")
    assert refused.status == 503
    assert "ordered down (by" in refused.json["error"]["message"]
    assert (started.status, started.json["error"]["message"]) == (503, refused.json["error"]["message"])
    assert ask(desk, "a", "two").status == 200
    assert desk.starts(1) == {"org/a": 1}, "nobody was stopped for a request that is refused"
    desk.manage("--no-proxy", "up", "b")
    eventually(lambda: ask(desk, "b", "three").status == 200, within=30)
    assert desk.starts(2) == {"org/a": 1, "org/b": 1}
    state = json.loads((desk.directory / "pod_state.json").read_text(encoding="utf-8"))
    assert state["models"]["a"]["down_reason"] == "its place was needed for b (by proxy)"
    assert admin(desk, "stop", "b").status == 200
    said = "down: an operator stopped it (by proxy)"
    eventually(lambda: said in desk.manage("--no-proxy", "--verbose").out, within=30)


def test_an_installation_that_is_ordered_down_is_not_ready_for_requests(desk: Desk) -> None:
    begin_one(desk)
    desk.manage("down").expect()
    eventually(lambda: get(desk, "/readyz").status == 503, within=10)
    assert "ordered down" in get(desk, "/readyz").json["reason"]
    assert admin(desk, "start", "default").status == 503
