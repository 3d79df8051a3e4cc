"""The backend `process` through the front door: configuration, passes, an answer through the proxy, `--shutdown`."""

import json
import re
import sys

import requests

from tests.support.desk import MODEL, Desk
from tests.support.net import listens
from tests.support.wait import eventually

_PODS = re.compile(r".*\b(?:[Pp]ods?|RunPod)\b.*")
SERVER = [sys.executable, "-m", "llmpod.sim.vllm", "--model", MODEL]


def test_a_local_command_answers_through_the_proxy_and_ends_with_shutdown(desk: Desk) -> None:
    desk.write(SERVER)
    desk.manage().expect()
    status = desk.passes_until("ready")
    assert status["usd_per_hour"] == 0
    eventually(lambda: listens(desk.port), within=20)
    answer = eventually(desk.ask, within=20, ignoring=requests.RequestException)
    assert answer["choices"][0]["message"]["content"]
    assert status["instance_id"] in desk.manage("status").expect().out
    assert "http://127.0.0.1" in desk.manage("logs").expect().out, "the server's own first line"
    assert "down" in desk.manage("--shutdown").expect().out
    assert desk.state()["phase"] == "stopped"
    assert not listens(desk.port)
    eventually(lambda: not desk.servers(), within=10)


def test_what_nothing_limits_is_told_as_such(desk: Desk) -> None:
    """The state holds a deadline ten years away: there, none at all would be one that got lost."""
    desk.write(SERVER)
    deadline = desk.passes_until("ready")["deadline"]
    assert deadline > 1e9
    document = json.loads(desk.manage("status", "--json").expect().out)["models"]["default"]
    assert (document["deadline"], document["switch_at"]) == (None, None)
    costs = json.loads(desk.manage("cost", "--json").expect().out)
    assert costs["worst_case"] == {"usd": 0.0, "until": None, "unknown": []}
    assert [live["deadline"] for live in costs["live"]] == [None]
    assert "worst case     what runs is free, and has no end" in desk.manage("cost").expect().out
    desk.write(SERVER, runtime_seconds=3600)
    desk.manage("up").expect()
    limited = desk.passes_until("ready")["deadline"]
    assert limited < deadline
    document = json.loads(desk.manage("status", "--json").expect().out)["models"]["default"]
    assert document["deadline"] == limited


def test_a_command_that_crashes_is_started_again_and_then_given_up_with_its_last_words(desk: Desk) -> None:
    desk.write([sys.executable, "-c", "import sys; print('no such model here'); sys.exit(4)"], max_restarts=1)
    status = desk.passes_until("failed")
    assert "exit code 4" in status["error"]
    assert "no such model here" in status["error"]
    assert status["attempts"] == 2
    whose, *kept = desk.manage("logs").out.splitlines()
    assert "no such model here" in kept
    assert ": the process has exited: it ended with exit code 4" in whose


def test_a_changed_command_replaces_the_server_and_a_missing_one_says_so(desk: Desk) -> None:
    desk.write(SERVER)
    first = desk.passes_until("ready")["instance_id"]
    desk.write([*SERVER, "--max-model-len", "512"])
    eventually(lambda: desk.passes_until("ready")["instance_id"] != first, within=60)
    assert len([p for p in desk.servers() if "sim.vllm" in p.command and "warden" not in p.command]) == 1
    desk.write(["no-such-program"])
    assert "no-such-program" in desk.passes_until("failed")["error"]


def test_a_killed_server_is_started_again(desk: Desk) -> None:
    desk.write(SERVER)
    first = desk.passes_until("ready")["instance_id"]
    for process in desk.servers():
        process.kill()
    eventually(lambda: desk.passes_until("ready")["instance_id"] != first, within=60)


def test_what_does_not_apply_is_said_and_needs_no_key(desk: Desk) -> None:
    desk.write(SERVER)
    assert "nothing to pay" in desk.manage("plan").expect().out
    assert "nothing to pay" in desk.manage("--dry-run").expect().out
    desk.write(["no-such-server"])
    assert "there is no program 'no-such-server'" in desk.manage("--dry-run").expect(78).err
    desk.write(SERVER)
    assert desk.servers() == []
    assert "no catalog" in desk.manage("--refresh-catalog").expect().out
    assert "bill" not in desk.manage("cost").expect().out
    doctor = desk.manage("doctor").out
    assert "process needs none" in doctor
    assert "RunPod" not in doctor
    assert "0 terminated" in desk.manage("panic").expect().out


def test_every_text_is_about_the_process_that_runs(desk: Desk) -> None:
    desk.write([sys.executable, "-c", "import sys; print('no memory'); sys.exit(3)"], max_restarts=0)
    said = {word: desk.manage(*word.split()) for word in ("--dry-run", "--no-proxy --verbose up", "status")}
    desk.passes_until("failed")
    later = ("status", "logs", "cost", "doctor", "--dry-run", "--no-proxy --verbose down", "panic")
    said |= {f"then {word}": desk.manage(*word.split()) for word in later}
    assert "the process has exited: it ended with exit code 3" in said["then status"].out
    assert "no memory" in said["then logs"].out
    wrong = {word: _PODS.findall(done.out + done.err) for word, done in said.items()}
    assert not any(wrong.values()), wrong


def test_shutdown_works_with_a_broken_configuration(desk: Desk) -> None:
    desk.write(SERVER)
    desk.passes_until("ready")
    path = desk.directory / "pod_config.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    desk.manage("--shutdown").expect()
    eventually(lambda: not desk.servers(), within=10)
    path.write_text(text)
