"""SIGHUP: changed settings are taken over without a dropped connection, wrong ones change nothing (F45, F52)."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmpod.config import settings_digest
from tests.proxy.front import Proxy, chat_body, proxy, raw_chat, settings
from tests.proxy.keys import KEYS, entry, write_keys
from tests.proxy.stub import Stub, Turn, frames, halfway, plain, stub
from tests.support.wait import eventually


def write(path: Path, values: dict[str, str]) -> None:
    path.touch(mode=0o600)
    path.write_text(json.dumps(values))


@contextmanager
def handed(path: Path, env: dict[str, str], values: dict[str, str]) -> Iterator[Proxy]:
    """A proxy that has its settings from a file, as the manager hands them over."""
    write(path, values)
    with proxy({**env, "LLMPOD_SETTINGS": str(path)}) as front:
        assert front.get("/livez").status == 200  # until then it is deaf to SIGHUP
        yield front


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.json"


@pytest.fixture
def server() -> Iterator[Stub]:
    with stub() as running:
        running.script = plain
        yield running


def events(front: Proxy, name: str) -> list[dict[str, Any]]:
    return [line for line in front.logs() if line["event"] == name]


def told(front: Proxy, name: str) -> dict[str, Any]:
    """What it logs when it is told to look."""
    before = len(events(front, name))
    front.process.signal(signal.SIGHUP)
    return eventually(lambda: events(front, name)[before:], within=15)[0]


def test_what_may_change_changes_and_nobody_is_cut_off(
    cache_dir: Path, file: Path, env: dict[str, str], server: Stub
) -> None:
    """On the same connection, with an answer under way."""
    go, base = threading.Event(), settings(cache_dir, server.url)

    with handed(file, env, base) as front, front.client() as old:
        assert front.ask(chat_body("stored")).cache == "MISS"
        server.script = halfway(go)
        old.sock.sendall(raw_chat("under way", stream=True))
        reply = old.open_reply()
        assert reply.read1(65536) == frames("a")[0]
        write(
            file,
            base
            | {"MAX_CACHE_SIZE": "7", "CACHE_SIZE_BYTES": "1000000", "CACHE_POLICY": "off"}
            | {"LLMPOD_CORS_ORIGINS": "https://a.example", "LLMPOD_ALLOWED_HOSTS": "box.lan"}
            | {"LLMPOD_REQUESTS_PER_MINUTE": "1", "ENABLE_PROFILING": "true", "LOG_LEVEL": "INFO"},
        )
        line = told(front, "config_read")
        assert "max_cache_size" in line["changed"]
        assert "requests_per_minute" in line["changed"]
        go.set()
        rest = old.rest(reply)
        assert (rest.body, rest.cut) == (b"".join(frames("a")[1:]), False)
        health = front.get("/health").json
        assert (health["max_cache_size"], health["max_cache_bytes"]) == (7, 1_000_000)
        assert health["settings"] == settings_digest(file.read_text())
        assert health["config_error"] is None
        assert front.get("/health", {"Host": "box.lan"}).status == 200
        allowed = front.get("/health", {"Origin": "https://a.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        assert front.get("/debug/cache").status == 200
        server.script = plain
        old.sock.sendall(raw_chat("counted"))
        answer = old.reply()
        assert (answer.status, answer.cache) == (200, "BYPASS"), "the same connection, by the new policy"
        assert front.ask(chat_body("too many")).status == 429
        write(file, base | {"LLMPOD_REQUESTS_PER_MINUTE": "1000"})
        told(front, "config_read")
        assert front.ask(chat_body("not too many")).status == 200, "who was limited before is so no longer"
        assert not events(front, "config_needs_restart")


def test_limits_of_the_cache_hold_at_once(
    cache_dir: Path, file: Path, env: dict[str, str], server: Stub
) -> None:
    base = settings(cache_dir, server.url)
    with handed(file, env, base) as front:
        for number in range(20):
            front.ask(chat_body(str(number)))
        eventually(lambda: front.get("/health").json["cache_entries"] == 20)
        write(file, base | {"MAX_CACHE_SIZE": "5"})
        told(front, "config_read")
        assert front.get("/health").json["cache_entries"] == 5
        assert front.ask(chat_body("19")).cache == "HIT"
        assert front.ask(chat_body("3")).cache == "MISS"
        write(file, base | {"MAX_CACHE_SIZE": "5", "CACHE_TTL_SECONDS": "1"})
        told(front, "config_read")
        eventually(lambda: front.ask(chat_body("18")).cache != "HIT", within=15)


def test_who_may_call_changes_for_connections_that_are_open(
    cache_dir: Path, file: Path, tmp_path: Path, env: dict[str, str], server: Stub
) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, entry("infer"))
    base = settings(cache_dir, server.url)
    with handed(file, env, base) as front, front.client() as old:
        for _ in range(2):  # the same head again is not asked again by itself
            old.sock.sendall(raw_chat("open"))
            assert old.reply().status == 200
        write(file, base | {"LLMPOD_AUTH": "keys", "LLMPOD_KEYS_FILE": str(path)})
        told(front, "config_read")
        old.sock.sendall(raw_chat("open"))
        assert old.reply().status == 401
        key = {"Authorization": f"Bearer {KEYS['infer']}"}
        assert front.ask(chat_body("open"), headers=key).status == 200


def test_what_needs_a_restart_is_named_and_stays(
    cache_dir: Path, file: Path, env: dict[str, str], server: Stub
) -> None:
    base = settings(cache_dir, server.url)
    with handed(file, env, base) as front:
        write(file, base | {"PORT": "1", "CACHE_DIR": "/elsewhere", "MAX_CACHE_SIZE": "9"})
        line = told(front, "config_needs_restart")
        assert {"port", "cache_dir"} == set(line["settings"].split(", "))
        health = front.get("/health").json
        assert (health["cache_dir"], health["max_cache_size"]) == (str(cache_dir), 9)


WRONG = {
    "half": '{"PORT": "0", "MAX_CACHE',
    "empty": "",
    "no object": "[1]",
    "no texts": '{"PORT": 5}',
    "a wrong value": '{"MAX_CACHE_SIZE": "many"}',
    "no keys": '{"LLMPOD_AUTH": "keys"}',
    "damaged keys": '{"LLMPOD_AUTH": "keys", "LLMPOD_KEYS_FILE": "/dev/null/x"}',
    "nothing at all": None,
}


def test_wrong_settings_change_nothing_and_are_told(
    cache_dir: Path, file: Path, env: dict[str, str], server: Stub
) -> None:
    base = settings(cache_dir, server.url, MAX_CACHE_SIZE="11")
    with handed(file, {**env, "PORT": "0", "RUNPOD_ENDPOINT": server.url}, base) as front:
        for count, (what, text) in enumerate(WRONG.items(), 1):
            file.unlink()
            if text is not None:
                file.touch(mode=0o600)
                file.write_text(text)
            reason = told(front, "config_unusable")["reason"]
            health = front.get("/health").json
            assert reason, what
            assert (health["max_cache_size"], health["config_error"]) == (11, reason)
            assert front.metrics()["config_reload_failed_total"] == count
            assert front.ask(chat_body(what)).status == 200
        text = front.get("/metrics", {"Accept": "text/plain"}).body.decode()
        assert f"llmpod_config_reload_failed_total {float(len(WRONG))}" in text
        file.unlink(missing_ok=True)
        write(file, base | {"MAX_CACHE_SIZE": "12"})
        told(front, "config_read")
        health = front.get("/health").json
        assert (health["max_cache_size"], health["config_error"]) == (12, None)


def test_a_file_that_others_may_read_is_refused(
    cache_dir: Path, file: Path, env: dict[str, str], server: Stub
) -> None:
    base = settings(cache_dir, server.url)
    with handed(file, env, base) as front:
        file.chmod(0o644)
        assert "chmod 600" in told(front, "config_unusable")["reason"]


def test_an_address_for_everybody_is_not_opened_by_a_reload(
    cache_dir: Path, file: Path, tmp_path: Path, env: dict[str, str], server: Stub
) -> None:
    """Bound to all addresses, with the rule that allows it taken back."""
    base = settings(cache_dir, server.url, LLMPOD_HOST="0.0.0.0")  # noqa: S104 - what is tested
    with handed(file, env, base | {"LLMPOD_ALLOW_INSECURE_BIND": "true"}) as front:
        write(file, base)
        assert "other machines" in told(front, "config_unusable")["reason"]
        assert front.get("/livez").status == 200


def test_places_are_taken_back_and_given(
    cache_dir: Path, file: Path, env: dict[str, str], server: Stub
) -> None:
    """Three answers under way, then place for one: a fourth waits while two are left; then there is place for many."""
    base = settings(cache_dir, server.url)
    gates = {str(number): threading.Event() for number in range(5)}

    def script(turn: Turn) -> None:
        gates[turn.json["messages"][-1]["content"]].wait(15)
        plain(turn)

    with handed(file, env, base) as front, ExitStack() as stack:
        server.script = script
        clients = [stack.enter_context(front.client()) for _ in gates]
        for number in range(3):
            clients[number].sock.sendall(raw_chat(str(number)))
        server.wait_turns(3)
        write(file, base | {"LLMPOD_MAX_IN_FLIGHT": "1"})
        told(front, "config_read")
        for number in (3, 4):
            clients[number].sock.sendall(raw_chat(str(number)))
        gates["0"].set()
        assert clients[0].reply().status == 200
        assert front.get("/livez").status == 200
        assert len(server.turns) == 3
        write(file, base | {"LLMPOD_MAX_IN_FLIGHT": "4"})
        told(front, "config_read")
        server.wait_turns(5)
        for gate in gates.values():
            gate.set()
        assert [client.reply().status for client in clients[1:]] == [200] * 4
