"""Models of several providers, one of which is away: the others' models go on, and of its own nothing is concluded."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.support.install import Install
from tests.support.source import ROOT
from tests.support.wait import eventually


def mixed(install: Install, **keys: object) -> None:
    """A rented model, chat, and one on this machine, local."""
    words = [sys.executable, "-m", "llmpod.sim.vllm", "--model", "org/local"]
    local = {"backend": "process", "process": {"command": words, "cwd": str(ROOT), "stop_seconds": 5}}
    models = {"chat": {"model": "org/tiny-chat"}, "local": {"model": "org/local", **local, **keys}}
    install.write(model=None, models=models, default_model="chat")


def records(install: Install) -> dict[str, Any]:
    document = json.loads((install.directory / "pod_state.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = document["models"]
    return found


def ready(install: Install) -> bool:
    install.manage()
    return {record["phase"] for record in records(install).values()} == {"ready"}


def comes_to(install: Install, model: str, phase: str) -> None:
    def there() -> bool:
        install.manage()
        return bool(records(install)[model]["phase"] == phase)

    eventually(there, within=60)


def entries(install: Install) -> list[str]:
    """What the ledger says of pods, in its own words."""
    return (install.directory / ".llmpod" / "pod_state" / "ledger.jsonl").read_text().splitlines()


def test_the_models_of_another_provider_go_on(install: Install) -> None:
    mixed(install)
    eventually(lambda: ready(install), within=60)
    install.manage("down", "local").expect()
    comes_to(install, "local", "stopped")

    before, written = records(install), entries(install)
    install.sim.fault("list", "500", times=1000)
    assert "chat" in install.manage("up", "local").expect(75).out
    comes_to(install, "local", "ready")
    said = install.manage().expect(75).out
    assert "Nothing is known of chat" in said
    assert records(install)["chat"] == before["chat"], "nothing is concluded"
    assert [pod["id"] for pod in install.sim.alive()] == [before["chat"]["instance_id"]]
    chat = [line for line in entries(install) if before["chat"]["instance_id"] in line]
    assert chat == [line for line in written if before["chat"]["instance_id"] in line], (
        "nor that it costs no more"
    )

    with ThreadPoolExecutor() as pool:
        ending = pool.submit(install.manage, "down", within=120)
        eventually(lambda: not install.sim.alive(), within=60)
        install.sim.reset()  # what must end was ended unseen; only now the list says so
        assert "down: no pod of this installation exists" in ending.result().expect().out


def test_a_lost_state_is_rebuilt_from_what_is_in_reach(install: Install) -> None:
    """What nobody can see is found when it shows up again; until then nothing is made in its place."""
    mixed(install)
    eventually(lambda: ready(install), within=60)
    before, (pod,) = records(install), install.sim.alive()
    (install.directory / "pod_state.json").write_text("{")
    install.sim.fault("list", "500", times=10**6)
    install.manage().expect(78)
    assert records(install)["local"]["instance_id"] == before["local"]["instance_id"]
    comes_to(install, "local", "ready")
    assert [alive["id"] for alive in install.sim.alive()] == [pod["id"]]
    install.sim.reset()
    install.manage("--shutdown").expect()


def test_a_removed_model_is_ended_although_nothing_can_be_listed(install: Install) -> None:
    """By the id that is known of it, as one that was ordered down is."""
    models = {"chat": {"model": "org/tiny-chat"}, "other": {"model": "org/other", "start": "on_request"}}
    install.write(model=None, models=models, default_model="chat")
    comes_to(install, "chat", "ready")
    install.sim.fault("list", "500", times=10**6)
    install.write(model=None, models={"other": models["other"]}, default_model="other")

    def ended() -> bool:
        install.manage()
        return not install.sim.alive()

    eventually(ended, within=30)


def test_a_key_that_is_refused_is_told_though_other_models_go_on(install: Install) -> None:
    """Only a person can mend it, and what runs with that account goes on costing."""
    mixed(install, start="on_request")
    comes_to(install, "chat", "ready")
    install.sim.fault("list", "401", times=10**6)

    def told() -> bool:
        install.manage()
        events = (install.directory / ".llmpod" / "pod_state" / "events.jsonl").read_text().splitlines()
        return any(e["kind"] == "failed" and "key" in e["text"] for e in map(json.loads, events))

    eventually(told, within=20)


def test_a_key_that_is_missing_keeps_no_local_model_down(install: Install) -> None:
    """As in the passes of a proxy that was started where the key is exported: they know the files alone."""
    mixed(install)

    def said_without(*words: str, code: int = 75) -> str:
        """What a command says that has no key."""
        done = install.start(install.argv(*words), env=install.env, within=60).expect(code)
        return done.out + done.err

    said_without()
    eventually(lambda: said_without() and records(install)["local"]["phase"] == "ready", within=60)
    said = said_without()
    assert "Nothing is known of chat: There is no RunPod API key." in said
    assert "chmod 600" in said
    assert install.sim.requests() == [], "nothing is asked without a key"
    assert "problem  key         There is no RunPod API key. Some models need one." in said_without(
        "doctor", code=1
    )
    assert "the next pass with a key carries it out; nothing is known to run" in said_without("down", code=77)
    assert records(install)["local"]["phase"] == "stopped"


def test_panic_without_a_key_ends_what_needs_none(install: Install) -> None:
    """And says at once what is left to do, not after five minutes."""
    mixed(install)
    eventually(lambda: ready(install), within=60)
    (pod,) = install.sim.alive()
    panic = install.start(install.argv("panic"), env=install.env, within=60).expect(77)
    assert "terminating" in panic.out
    assert "by hand at https://console.runpod.io/pods" in panic.err
    assert [alive["id"] for alive in install.sim.alive()] == [pod["id"]]
    install.manage("panic").expect()


def test_panic_ends_what_is_in_reach(install: Install) -> None:
    """And goes on until it knows of the rest."""
    mixed(install)
    eventually(lambda: ready(install), within=60)
    server = records(install)["local"]["instance_id"]
    install.sim.fault("list", "500", times=10**6)
    with ThreadPoolExecutor() as pool:
        panic = pool.submit(install.manage, "panic", within=120)
        ended = install.directory / ".llmpod" / "pod_state" / "machines-local" / server / "ended"
        eventually(ended.exists, within=30)
        install.sim.reset()  # the other one's machine is gone, and now the list says so
        panic.result().expect()


def test_panic_ends_a_removed_model_of_a_provider_that_no_other_one_needs(install: Install) -> None:
    mixed(install, start="on_request")
    comes_to(install, "chat", "ready")
    models = install.config["models"]
    install.write(models={"local": models["local"]}, default_model="local")
    assert "1 terminated" in install.manage("panic").expect().out
    assert not install.sim.alive()
