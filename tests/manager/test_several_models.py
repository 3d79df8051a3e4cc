"""Several models behind one port, through the front door: three that share a place, and clients who come and go."""

import json
import random
import sys
import threading

import pytest

from tests.proxy.described import check
from tests.proxy.front import Client, Reply
from tests.support.desk import Desk
from tests.support.net import listens
from tests.support.source import ROOT
from tests.support.wait import eventually

MODELS = {"a": "org/a", "b": "org/b", "c": "org/c"}


def begin(desk: Desk, **changes: object) -> None:
    write(desk, **changes)
    desk.manage().expect()
    eventually(lambda: listens(desk.port), within=20)


def write(desk: Desk, **changes: object) -> None:
    """The configuration; None removes a key."""
    models = {name: model(hub_id) for name, hub_id in MODELS.items()}
    models["b"] |= {"aliases": ["gpt-4o"], "system_prompt": "You are b."}
    config = {
        "backend": "process",
        "start": "on_request",
        "models": models,
        "groups": {"gpu": {"members": list(MODELS)}},
        "proxy_port": desk.port,
        "cache_dir": "cache",
        "start_timeout_seconds": 600,
        **changes,
    }
    kept = {key: value for key, value in config.items() if value is not None}
    (desk.directory / "pod_config.json").write_text(json.dumps(kept))


def model(hub_id: str) -> dict[str, object]:
    return {"model": hub_id, "process": process(hub_id)}


def process(hub_id: str) -> dict[str, object]:
    words = [sys.executable, "-m", "llmpod.sim.vllm", "--model", hub_id, "--tokens-per-second", "200"]
    return {"command": words, "cwd": str(ROOT), "stop_seconds": 5}


def send(client: Client, model: str, text: str, path: str = "/v1/chat/completions") -> None:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4}
    client.send("POST", path, json.dumps(body).encode())


def ask(desk: Desk, model: str, text: str, path: str = "/v1/chat/completions") -> Reply:
    with Client(desk.port, timeout=600.0) as client:
        send(client, model, text, path)
        return client.reply()


def test_names_aliases_and_addresses_lead_to_the_right_model_one_at_a_time(desk: Desk) -> None:
    begin(desk)
    with Client(desk.port) as client:
        client.send("GET", "/v1/models")
        assert [m["id"] for m in client.reply("GET").json["data"]] == list(MODELS.values())
    assert ask(desk, "org/a", "one").json["model"] == "org/a"
    assert ask(desk, "gpt-4o", "one").json["model"] == "org/b"
    assert ask(desk, "whatever", "two", "/b/v1/chat/completions").json["model"] == "org/b"
    assert desk.starts(2) == {"org/a": 1, "org/b": 1}
    assert ask(desk, "a", "one").cache == "HIT", "from the cache, with its model gone"
    assert ask(desk, "a", "one", "/nobody/v1/chat/completions").status == 404
    unknown = ask(desk, "gpt-5", "one")
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
    assert all(name in unknown.json["error"]["message"] for name in ("org/a", "org/b", "org/c", "gpt-4o"))
    assert desk.starts(2) == {"org/a": 1, "org/b": 1}, "and nothing was stopped or started for it"
    status = json.loads(desk.manage("status", "--json").expect().out)
    assert status
    running = [p for p in desk.servers() if "sim.vllm" in p.command and "warden" not in p.command]
    assert len(running) == 1, running


@pytest.mark.parametrize(
    "requests", [30, pytest.param(1000, marks=[pytest.mark.long, pytest.mark.timeout(3000)])]
)
def test_many_requests_over_three_models_that_share_a_place(desk: Desk, requests: int) -> None:
    """Bursts for all three at once; each tenth client leaves. None is lost, none answered by the wrong model, and
    there are no more starts than bursts times models, and a tenth.
    """
    begin(desk, max_in_flight=256)
    dice, wrong = random.Random(7), list[str]()
    burst = min(requests, 100)

    def one(number: int) -> None:
        name = dice.choice(list(MODELS))
        if number % 10 == 9:
            with Client(desk.port) as client:
                send(client, name, f"left {number}")
            return
        reply = ask(desk, name, f"question {number}")
        if reply.status != 200 or reply.json["model"] != MODELS[name]:
            wrong.append(f"{number} for {name}: {reply.status} {reply.body[:200]!r}")

    for first in range(0, requests, burst):
        threads = [threading.Thread(target=one, args=(first + n,)) for n in range(burst)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    bursts = -(-requests // burst)
    assert desk.starts(bursts * len(MODELS)).total() <= int(bursts * len(MODELS) * 1.1) + 1
    log = (desk.directory / ".llmpod" / "pod_state" / "proxy.log").read_text()
    assert '"upstream"' not in log, "no answer was cut by a stop"


def test_warming_up_one_starts_no_other(desk: Desk) -> None:
    """A file for all of them is asked when the first is ready: what is asked of the others is nobody's request."""
    lines = [
        json.dumps({"model": m, "messages": [{"role": "user", "content": "hi"}]}) for m in MODELS.values()
    ]
    file = desk.directory / "warm.jsonl"
    file.write_text("\n".join(lines))
    begin(desk, prewarm_cache=str(file), idle_seconds=2)
    assert ask(desk, "a", "one").status == 200
    log = desk.directory / ".llmpod" / "pod_state" / "proxy.log"
    eventually(lambda: '"prewarmed"' in log.read_text(), within=30)
    eventually(lambda: admin(desk, "/stats").json["models"][0]["state"] == "asleep", within=30)
    said = desk.manage("--no-proxy", "--verbose").expect().out
    assert all(f"{name}: down: it starts with the first request" in said for name in "bc"), said
    assert desk.starts(1) == {"org/a": 1}


def admin(desk: Desk, what: str, body: object = None) -> Reply:
    with Client(desk.port, timeout=60.0) as client:
        client.send(
            "GET" if body is None else "POST", what, b"" if body is None else json.dumps(body).encode()
        )
        reply = client.reply("GET" if body is None else "POST")
    check(reply, what, "GET" if body is None else "POST")
    return reply


def test_operators_see_start_stop_and_cancel(desk: Desk) -> None:
    begin(desk)
    routes = admin(desk, "/routes").json["routes"]
    assert [(r["model"], r["path"], r["starts"]) for r in routes[:2]] == [
        ("a", "/a/v1", "on request"),
        ("b", "/b/v1", "on request"),
    ]
    assert admin(desk, "/admin/start", {"model": "nobody"}).status == 404
    assert admin(desk, "/admin/start", {"model": "b"}).json["state"] == "waking"
    assert admin(desk, "/admin/stop", {"model": "b"}).json["state"] == "resting", (
        "its own start is nobody's use"
    )
    eventually(lambda: admin(desk, "/admin/start", {"model": "gpt-4o"}).json["state"] == "awake", within=60)
    with Client(desk.port, timeout=60.0) as client:
        body = {
            "model": "b",
            "messages": [{"role": "user", "content": "long"}],
            "stream": True,
            "max_tokens": 4000,
        }
        client.send("POST", "/v1/chat/completions", json.dumps(body).encode())
        stream = client.open_reply()
        assert stream.read1(1)
        busy = admin(desk, "/admin/stop", {"model": "b"})
        assert (busy.status, "1 in flight" in busy.json["error"]["message"]) == (409, True)
        (running,) = admin(desk, "/admin/inflight").json["in_flight"]
        assert (running["model"], running["path"]) == ("org/b", "/v1/chat/completions")
        assert "long" not in json.dumps(running)
        assert admin(desk, "/admin/cancel", {"id": running["id"]}).json["cancelled"]
        assert b"ended by an operator" in client.rest(stream).body
    eventually(lambda: admin(desk, "/stats").json["models"][1]["in_flight"] == 0)
    assert admin(desk, "/admin/cancel", {"id": running["id"]}).status == 404
    assert admin(desk, "/admin/stop", {"model": "b"}).json["state"] == "resting"
    eventually(lambda: admin(desk, "/stats").json["models"][1]["state"] == "asleep", within=30)
    assert [start["model"] for start in admin(desk, "/admin/starts").json["starts"]] == ["org/b"]


def test_an_operator_restarts_one(desk: Desk) -> None:
    begin(desk)
    assert admin(desk, "/admin/restart", {"model": "nobody"}).status == 404
    assert admin(desk, "/admin/restart", {"model": "a"}).json["state"] == "waking", "it was not up"
    assert ask(desk, "a", "one").status == 200
    (before,) = [p.pid for p in desk.servers() if "org/a" in p.command and "warden" not in p.command]
    assert admin(desk, "/admin/restart", {"model": "org/a"}).json["state"] == "renewing"
    assert ask(desk, "a", "two").status == 200, "who comes meanwhile waits"
    (after,) = [p.pid for p in desk.servers() if "org/a" in p.command and "warden" not in p.command]
    assert after != before
    assert desk.starts(2) == {"org/a": 2}


def test_a_person_switches(desk: Desk) -> None:
    begin(desk)
    assert ask(desk, "a", "hello").status == 200
    assert "c runs; a stopped" in desk.manage("--no-proxy", "switch", "org/c").expect().out
    assert desk.starts(2) == {"org/a": 1, "org/c": 1}
    assert ask(desk, "c", "hello").status == 200
    assert ask(desk, "a", "again").status == 200, "a request may change it again"
    assert desk.starts(3) == {"org/a": 2, "org/c": 1}
    unknown = desk.manage("switch", "aa").expect(2)
    assert "Did you mean a? There are: a, b, c." in unknown.err
    said = desk.manage("--no-proxy", "--verbose", "up", "b").expect().out
    assert "b: waits until a has ended" in said, "never two of a group, whoever orders it"
    assert "waits until a has ended" in desk.manage("status").expect().out
    assert "down: b" in desk.manage("--no-proxy", "down", "b").expect().out
    assert ask(desk, "b", "hello").status == 503
    assert ask(desk, "a", "third").status == 200


def test_one_model_alone_has_the_name_that_it_is_given(desk: Desk) -> None:
    config = {
        "backend": "process",
        "models": {"chat": model("org/a")},
        "proxy_port": desk.port,
        "cache_dir": "cache",
    }
    (desk.directory / "pod_config.json").write_text(json.dumps(config))
    desk.manage("up").expect()
    eventually(lambda: ": ready" in desk.manage("--no-proxy", "--verbose").out, within=30)
    eventually(lambda: ask(desk, "chat", "one").status == 200, within=10)
    assert ask(desk, "chat", "two", "/chat/v1/chat/completions").status == 200


def test_a_switch_leaves_a_persons_word_about_the_others(desk: Desk) -> None:
    """One that was ordered down stays down; what was stopped for the switch starts with its next request."""
    begin(desk)
    assert ask(desk, "b", "one").status == 200
    desk.manage("down", "c").expect()
    assert "b stopped" in desk.manage("switch", "a").expect().out
    assert ask(desk, "c", "one").status == 503
    assert ask(desk, "b", "two").status == 200


def test_status_says_why_and_stands_in_columns(desk: Desk) -> None:
    begin(desk)
    assert ask(desk, "a", "one").status == 200
    assert ask(desk, "b", "one").status == 200
    desk.manage("down", "c").expect()
    lines = desk.manage("status").expect().out.splitlines()
    a, b, c = (next(line for line in lines if line.startswith(name)) for name in ("a ", "b ", "c "))
    assert a.index("org/a") == b.index("org/b") == c.index("org/c")
    assert a.endswith(": its place was needed for b)")
    assert ": a request needs it)" in b
    assert "ordered down by down" in c
    assert ": " not in c
    assert [line for line in lines if "$" in line] == [], "nothing here costs anything"
    assert "Nothing cost anything in the last 14 days." in desk.manage("cost").expect().out
