"""Models that start with the first request, through the front door: wake, idle stop, wake again, and who may not."""

import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests

from tests.proxy.front import Client, Reply
from tests.support import procfs
from tests.support.desk import MODEL, Desk
from tests.support.install import Install
from tests.support.net import listens
from tests.support.wait import eventually

SERVER = [sys.executable, "-m", "llmpod.sim.vllm", "--model", MODEL]
CHAT = "/v1/chat/completions"


def begin(desk: Desk, command: list[str] | None = None, **changes: object) -> None:
    """A proxy that listens, and nothing else."""
    desk.write(command or SERVER, start="on_request", **changes)
    desk.manage().expect()
    eventually(lambda: listens(desk.port), within=20)


def body(text: str, **more: object) -> bytes:
    question = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 8}
    return json.dumps({**question, **more}).encode()


def ask(desk: Desk, text: str, agent: str = "test", **more: object) -> Reply:
    with Client(desk.port, timeout=60.0) as client:
        client.send("POST", CHAT, body(text, **more), {"User-Agent": agent})
        return client.reply()


def get(desk: Desk, path: str) -> Reply:
    with Client(desk.port) as client:
        client.send("GET", path)
        return client.reply("GET")


def test_the_first_request_starts_it_silence_stops_it_and_a_persons_down_stays(desk: Desk) -> None:
    begin(desk, idle_seconds=1)
    assert [m["id"] for m in get(desk, "/v1/models").json["data"]] == [MODEL]
    assert get(desk, "/health").status == 200
    assert get(desk, "/readyz").status == 200, "a request that came now would be served"
    assert not any("sim.vllm" in p.command for p in desk.servers())
    assert desk.state()["phase"] == "stopped"
    first = ask(desk, "one")
    assert (first.status, first.cache) == (200, "MISS")
    eventually(lambda: desk.state()["phase"] == "stopped", within=30)
    assert "idle" in desk.manage("status").expect().out
    assert ask(desk, "one").cache == "HIT"
    assert get(desk, "/v1/models").status == 200
    assert desk.state()["phase"] == "stopped"
    assert desk.starts(1).total() == 1, "neither a hit nor a listing starts anything"
    assert ask(desk, "two").status == 200
    assert desk.starts(2).total() == 2
    desk.manage("down").expect()
    reply = ask(desk, "three")
    assert reply.status == 503
    assert "ordered down" in reply.json["error"]["message"]
    assert ask(desk, "one").cache == "HIT"
    assert desk.state()["phase"] == "stopped"


def test_who_only_looks_neither_wakes_nor_keeps_awake(desk: Desk) -> None:
    begin(desk, idle_seconds=1)
    looks = (("HEAD", CHAT), ("GET", CHAT), ("GET", "/v1/health"), ("GET", "/v1/models"), ("OPTIONS", CHAT))

    def looked() -> str:
        for method, path in looks:
            with Client(desk.port) as client:
                client.send(method, path)
                client.reply(method)
        return str(desk.state()["phase"])

    assert looked() == "stopped"
    assert ask(desk, "one").status == 200
    eventually(lambda: looked() == "stopped", within=20, every=0.3)
    assert desk.starts(1).total() == 1


def test_a_name_that_the_model_has_not_starts_nothing(desk: Desk) -> None:
    """Neither asleep nor awake is it asked; who names none gets it."""
    begin(desk)
    for runs in (False, True):
        reply = ask(desk, "typo", model="org/tiny-chta")
        assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found")
        assert MODEL in reply.json["error"]["message"]
        assert reply.json["error"]["param"] == "model"
        assert desk.starts(runs).total() == runs
        assert ask(desk, "nameless", model=None).status == 200
    assert desk.starts(1).total() == 1
    log = (desk.directory / ".llmpod" / "pod_state" / "proxy.log").read_text()
    assert '"upstream_' not in log, "the server was never asked for it"


def test_many_who_wait_make_one_start_and_a_stream_is_not_cut_by_its_idle_time(desk: Desk) -> None:
    slow = [*SERVER, "--first-token-seconds", "0.1", "--tokens-per-second", "3"]
    begin(desk, slow, idle_seconds=1, keepalive_seconds=0.2)
    replies: list[Reply] = []

    def one(number: int) -> None:
        replies.append(ask(desk, f"question {number}", stream=True, max_tokens=10))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.status for reply in replies] == [200] * 8
    assert all(reply.body.endswith(b"data: [DONE]\n\n") and not reply.cut for reply in replies)
    assert all(reply.body.startswith(b": keepalive") for reply in replies), "they heard of it meanwhile"
    assert desk.starts(1).total() == 1


def test_what_a_changed_command_answers_is_not_what_the_old_one_answered(desk: Desk) -> None:
    """Nothing runs when it is changed: neither what is stored of the old one is served, nor anything stored as its."""
    changed = [*SERVER, "--max-model-len", "4096"]
    begin(desk, idle_seconds=1)
    assert ask(desk, "one").cache == "MISS"
    eventually(lambda: desk.state()["phase"] == "stopped", within=30)
    desk.write(changed, start="on_request", idle_seconds=1)
    assert ask(desk, "two").status == 200, "by the changed one, of which the proxy did not know"
    assert ask(desk, "three").cache == "MISS"
    eventually(lambda: desk.state()["phase"] == "stopped", within=30)
    desk.write(SERVER, start="on_request", idle_seconds=60)
    desk.manage().expect()
    eventually(lambda: ask(desk, "three").cache == "MISS", within=20)
    assert ask(desk, "two").cache == "MISS"
    assert ask(desk, "one").cache == "HIT"


def test_a_wish_to_stop_that_failed_is_not_heard_in_the_middle_of_a_later_answer(desk: Desk) -> None:
    """The disk refuses it; the model goes on, and so do requests; then the disk takes what is wished again."""
    begin(desk, [*SERVER, "--tokens-per-second", "8"], idle_seconds=1)
    assert ask(desk, "one").status == 200
    own = desk.directory / ".llmpod" / "pod_state"
    in_the_way = own / "usage.json" / "in the way"
    in_the_way.parent.unlink()
    in_the_way.mkdir(parents=True)
    eventually(lambda: '"rest"' in (own / "proxy.log").read_text(), within=30)
    with Client(desk.port, timeout=60.0) as client:
        client.send("POST", CHAT, body("two", stream=True, max_tokens=40))
        stream = client.open_reply()
        assert stream.read1(1)
        in_the_way.rmdir()
        in_the_way.parent.rmdir()
        eventually((own / "usage.json").is_file, within=10)
        desk.manage("--no-proxy").expect()
        whole = client.rest(stream)
    assert not whole.cut
    assert b'"abort"' not in whole.body


def test_a_server_that_died_in_silence_is_noticed_by_the_first_who_meets_it(desk: Desk) -> None:
    """No cron is needed for it: nothing else passes here."""
    begin(desk, max_restarts=2)
    assert ask(desk, "one").status == 200
    (server,) = [p for p in desk.servers() if "sim.vllm" in p.command and "warden" not in p.command]
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: ask(desk, "two").status == 200, within=30, every=0.5)
    assert desk.starts(2).total() == 2


@pytest.mark.skipif(not procfs.available(), reason="needs Linux: the limits of another process")
def test_a_system_that_starts_no_more_processes_stops_nothing_else(desk: Desk) -> None:
    begin(desk)
    proxy = json.loads((desk.directory / "pod_state.json").read_text())["proxy"]["process"]["pid"]

    def waiting() -> procfs.Process:
        everyone = [p for p in procfs.descendants(os.getpid()) if p.command.endswith(" attend")]
        (found,) = (p for p in everyone if str(desk.directory) in p.command)
        return found

    first = eventually(waiting, within=20, ignoring=ValueError)
    owner = first.parent
    with Client(desk.port, timeout=30.0) as client:
        client.send("GET", "/livez")
        assert client.reply("GET").status == 200  # it is accepted: from now on there are no more connections
        _, most = resource.prlimit(owner, resource.RLIMIT_NOFILE)
        assert owner != proxy, "the warden's child, which listens"
        resource.prlimit(owner, resource.RLIMIT_NOFILE, (3, most))
        os.kill(first.pid, signal.SIGKILL)
        log = desk.directory / ".llmpod" / "pod_state" / "proxy.log"
        eventually(lambda: "cannot be started" in log.read_text(), within=30)
        client.send("GET", "/livez")
        assert client.reply("GET").status == 200
    resource.prlimit(owner, resource.RLIMIT_NOFILE, (most, most))
    assert log.read_text().count("cannot be started") < 10
    assert ask(desk, "one").status == 200


def test_clients_get_what_they_can_live_with(desk: Desk) -> None:
    slow = [*SERVER, "--load-seconds", "2"]
    begin(desk, slow, idle_seconds=60, loading={"*": "hold", "reader": "text", "batch": "refuse"})
    refused = ask(desk, "batch", agent="batch/1.0")
    assert (refused.status, int(refused.headers["retry-after"]) >= 1) == (503, True)
    assert "is being started" in refused.json["error"]["message"]
    read = ask(desk, "reader", agent="Reader/2.0", stream=True)
    thoughts = [
        json.loads(line[6:])["choices"][0]["delta"].get("reasoning_content", "")
        for line in read.body.splitlines()
        if line.startswith(b"data: {")
    ]
    text = "".join(thoughts)
    assert text.startswith(f"Starting {MODEL}")
    assert "Ready after" in text
    assert read.body.endswith(b"data: [DONE]\n\n")
    assert ask(desk, "reader", agent="other", stream=True).body.startswith(b'data: {"id":"chatcmpl')
    assert ask(desk, "batch", agent="batch/1.0").status == 200
    assert desk.starts(1).total() == 1


def begun(install: Install, env: Mapping[str, str], **changes: object) -> None:
    """With the key where cron finds it, too: the environment of the manager is not the proxy's."""
    key = Path(env["HOME"]) / ".config" / "llmpod" / "runpod_api_key"
    key.parent.mkdir(parents=True)
    key.touch(mode=0o600)
    key.write_text(install.sim.key)
    install.proxy = True
    install.write(start="on_request", budget={"per_day_usd": 5}, **changes)
    install.manage().expect()
    eventually(lambda: listens(install.port), within=20)


def request(install: Install, text: str) -> requests.Response:
    question = {"model": "org/tiny-chat", "messages": [{"role": "user", "content": text}], "max_tokens": 5}
    return requests.post(f"http://127.0.0.1:{install.port}{CHAT}", json=question, timeout=60)


def test_what_costs_money_is_started_if_that_is_allowed_and_within_the_budget(
    install: Install, env: dict[str, str]
) -> None:
    begun(install, env)
    answer = request(install, "hi")
    assert answer.status_code == 402, answer.text
    assert "$0.00 of $5.00" in answer.json()["error"]["message"]
    assert install.sim.alive() == []
    install.write(wake_on_request=True)  # the manager reads it anew
    eventually(lambda: request(install, "hi").status_code == 200, within=60, every=0.5)
    assert len(install.sim.alive()) == 1
    install.write(budget={"per_day_usd": 0.000001})
    install.manage("--no-proxy")
    eventually(lambda: install.sim.alive() == [], within=20)
    eventually(lambda: request(install, "more").status_code == 402, within=60, every=0.5)
    refused = request(install, "more")
    assert "budget" in refused.json()["error"]["message"]
    assert int(refused.headers["Retry-After"]) > 0
    assert install.sim.alive() == []
