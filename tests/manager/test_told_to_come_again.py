"""Clients that cannot wait: told to come again, they find their model, though others wait for its place."""

import json

from tests.manager.test_several_models import MODELS, begin
from tests.proxy.front import Client, Reply
from tests.support.desk import Desk
from tests.support.wait import eventually


def send(client: Client, model: str, agent: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    client.send("POST", "/v1/chat/completions", json.dumps(body).encode(), {"User-Agent": agent})


def ask(desk: Desk, model: str, agent: str) -> Reply:
    with Client(desk.port, timeout=60.0) as client:
        send(client, model, agent)
        return client.reply()


def test_it_is_not_swapped_away_before_they_come(desk: Desk) -> None:
    begin(desk, idle_seconds=1, loading={"*": "hold", "batch": "refuse"})
    told = ask(desk, "a", "batch/1.0")
    assert (told.status, "is being started" in told.json["error"]["message"]) == (503, True)
    with Client(desk.port, timeout=60.0) as other:
        send(other, "b", "editor")
        eventually(lambda: desk.starts(1) == {MODELS["a"]: 1}, within=20)
        # the note of a start may come a moment before the proxy knows of it
        again = eventually(lambda: (reply := ask(desk, "a", "batch/1.0")).status == 200 and reply, within=20)
        assert again
        assert again.json["model"] == MODELS["a"]
        assert other.reply().json["model"] == MODELS["b"]
    assert desk.starts(2) == {MODELS["a"]: 1, MODELS["b"]: 1}
