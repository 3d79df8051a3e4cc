"""Models come, go and change while the proxy serves: nobody else hears of it, and no answer is cut."""

import json
import sys
from http.client import HTTPResponse
from itertools import count
from typing import Any

from tests.proxy.front import Client, Reply
from tests.support.desk import Desk
from tests.support.net import free_port, listens
from tests.support.source import ROOT
from tests.support.wait import eventually

CHAT = "/v1/chat/completions"
PORTS = {name: free_port() for name in ("org/a", "org/b", "org/c", "org/slow")}


def model(hub_id: str, *more: str, **keys: object) -> dict[str, object]:
    words = [sys.executable, "-m", "llmpod.sim.vllm", "--model", hub_id, "--tokens-per-second", "20", *more]
    section = {"command": words, "cwd": str(ROOT), "port": PORTS[hub_id]}
    return {"model": hub_id, "process": section, **keys}


def configure(desk: Desk, models: dict[str, dict[str, object]], **changes: object) -> str:
    """What a pass says once it has taken that over."""
    config = {
        "backend": "process",
        "start": "on_request",
        "models": models,
        "proxy_port": desk.port,
        "cache_dir": "cache",
        "restart_backoff_seconds": 0,
        **changes,
    }
    (desk.directory / "pod_config.json").write_text(json.dumps(config))
    said = eventually(lambda: _pass(desk), within=30)
    eventually(lambda: listens(desk.port), within=20)
    return said


def _pass(desk: Desk) -> str:
    """What one said; nothing when another one was at work, whose configuration may be the former one."""
    done = desk.manage("--verbose").expect()
    return "" if "Nothing to do." in done.out + done.err else done.out


def send(client: Client, name: str, text: str, tokens: int = 4, **more: object) -> None:
    body = {"model": name, "messages": [{"role": "user", "content": text}], "max_tokens": tokens, **more}
    client.send("POST", CHAT, json.dumps(body).encode())


def ask(desk: Desk, name: str, text: str) -> Reply:
    with Client(desk.port, timeout=60.0) as client:
        send(client, name, text)
        return client.reply()


def streaming(client: Client, name: str, text: str) -> HTTPResponse:
    """The beginning of an answer that takes ten seconds."""
    send(client, name, text, tokens=200, stream=True)
    reply = client.open_reply()
    assert (reply.status, len(reply.read1(1))) == (200, 1)
    return reply


def finished(client: Client, reply: HTTPResponse) -> bool:
    rest = client.rest(reply)
    return rest.body.endswith(b"data: [DONE]\n\n") and not rest.cut


def health(desk: Desk) -> dict[str, Any]:
    with Client(desk.port) as client:
        client.send("GET", "/health")
        found: dict[str, Any] = client.reply("GET").json
        return found


def pids(desk: Desk, hub_id: str) -> set[int]:
    return {p.pid for p in desk.servers() if f"--model {hub_id} " in p.command and "warden" not in p.command}


def records(desk: Desk) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((desk.directory / "pod_state.json").read_text())["models"]
    return found


def state(desk: Desk, name: str) -> str:
    """What the proxy takes a model to be in."""
    with Client(desk.port) as client:
        client.send("GET", "/stats")
        return str(next(m["state"] for m in client.reply("GET").json["models"] if m["model"] == name))


def orders(desk: Desk) -> set[str]:
    return set(json.loads((desk.directory / ".llmpod" / "pod_state" / "orders.json").read_text()))


def test_one_is_added_and_one_removed_while_both_others_answer(desk: Desk) -> None:
    """The removed one finishes its answer, then it is ended and forgotten; the other one's answer knows nothing."""
    configure(desk, {"a": model("org/a"), "b": model("org/b")})
    assert ask(desk, "a", "hello").status == ask(desk, "b", "hello").status == 200
    proxy, running = health(desk)["pid"], pids(desk, "org/a")
    with Client(desk.port, timeout=60) as stays, Client(desk.port, timeout=60) as goes:
        kept, last = streaming(stays, "a", "long"), streaming(goes, "b", "long")
        said = configure(desk, {"a": model("org/a", aliases=["gpt-4o"]), "c": model("org/c")})
        assert "proxy took over changed settings" in said
        assert "b: removed from the configuration; it ends when it has answered" in said
        unknown = ask(desk, "b", "more")
        assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
        assert "gpt-4o" in unknown.json["error"]["message"]
        assert "removed from the configuration" in desk.manage("status").expect().out
        assert ask(desk, "gpt-4o", "by its new name").status == 200
        added = ask(desk, "c", "hello")
        assert added.json.get("model") == "org/c", added
        assert finished(stays, kept)
        assert finished(goes, last)
    eventually(lambda: "b" not in records(desk), within=30)
    assert not pids(desk, "org/b")
    assert "b" not in orders(desk)
    assert (health(desk)["pid"], pids(desk, "org/a")) == (proxy, running), "neither was started anew"


def test_one_that_comes_back_is_new_and_starts_for_nobody_who_asked_for_the_former(desk: Desk) -> None:
    """The file of a proxy that is no more still says that it was wished for; only cron comes by."""
    models = {"a": model("org/a"), "b": model("org/b")}
    configure(desk, models)
    assert ask(desk, "b", "hello").status == 200
    desk.manage("--shutdown").expect()
    config = desk.directory / "pod_config.json"
    document = json.loads(config.read_text())
    for there in ({"a": models["a"]}, models):
        config.write_text(json.dumps({**document, "models": there}))
        desk.manage().expect()
        assert ("b" in orders(desk)) is ("b" in there)
    assert not pids(desk, "org/b")


def test_who_waits_for_one_that_is_removed_is_told(desk: Desk) -> None:
    configure(desk, {"a": model("org/a"), "slow": model("org/slow", "--load-seconds", "60")})
    with Client(desk.port, timeout=60) as client:
        send(client, "slow", "hello")
        eventually(lambda: pids(desk, "org/slow"), within=30)
        configure(desk, {"a": model("org/a")})
        reply = client.reply()
        assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found")
        assert "removed" in reply.json["error"]["message"]
    eventually(lambda: not pids(desk, "org/slow"), within=30)


def test_another_command_replaces_that_one_only_and_cuts_nobody(desk: Desk) -> None:
    """Who asks meanwhile waits for the new one; the answer under way is finished by the old one."""
    configure(desk, {"a": model("org/a"), "b": model("org/b")})
    assert ask(desk, "a", "hello").status == ask(desk, "b", "hello").status == 200
    proxy, unchanged, old = health(desk)["pid"], pids(desk, "org/a"), pids(desk, "org/b")
    with Client(desk.port, timeout=60) as before, Client(desk.port, timeout=60) as after:
        answer = streaming(before, "b", "long")
        said = configure(desk, {"a": model("org/a"), "b": model("org/b", "--max-model-len", "4096")})
        assert "replaced as soon as nobody is answered by it" in said
        eventually(lambda: state(desk, "b") == "asleep", within=20)  # the proxy has seen it, too
        send(after, "b", "next")
        assert finished(before, answer)
        reply = after.reply()
        assert (reply.status, reply.cache) == (200, "MISS"), reply.body
    assert pids(desk, "org/b").isdisjoint(old)
    assert (health(desk)["pid"], pids(desk, "org/a")) == (proxy, unchanged)


def test_one_that_runs_always_is_replaced_when_it_has_answered(desk: Desk) -> None:
    """Nothing starts by request here, so only passes see to it."""
    configure(desk, {"a": model("org/a"), "b": model("org/b")}, start="always")
    eventually(lambda: _passed(desk, "a", "b"), within=60)
    eventually(lambda: ask(desk, "b", "hello").status == 200, within=20)  # the proxy has seen it, too
    old = pids(desk, "org/b")
    with Client(desk.port, timeout=60) as before:
        answer = streaming(before, "b", "long")
        changed = {"a": model("org/a"), "b": model("org/b", "--max-model-len", "4096")}
        configure(desk, changed, start="always")
        texts = map(str, count())  # one that the old one still answers is stored
        eventually(lambda: b"started anew" in ask(desk, "b", next(texts)).body, within=20)
        desk.manage().expect()
        assert finished(before, answer)
    eventually(lambda: _passed(desk, "a", "b") and pids(desk, "org/b").isdisjoint(old), within=60)
    eventually(lambda: ask(desk, "b", "next").status == 200, within=20)


def _passed(desk: Desk, *names: str) -> bool:
    """Whether these are ready after one pass more."""
    desk.manage("--no-proxy").expect()
    return all(records(desk)[name]["phase"] == "ready" for name in names)
