"""`cache …` on a directory that a real proxy filled, while that proxy runs and without it."""

import json
import stat
from pathlib import Path

from llmpod.config import KEYS_FILE
from tests.manager.cache_kit import Kit, eventually_stored, filled, front, kit, server
from tests.proxy.front import Proxy, chat_body, proxy, settings
from tests.proxy.keys import KEYS, entry, write_keys
from tests.proxy.stub import CHAT, Stub
from tests.support.process import PYTHON, run
from tests.support.source import ROOT

__all__ = ["front", "kit", "server"]


def test_an_empty_place(kit: Kit) -> None:
    assert "No answer" in kit("ls")
    assert kit.json("ls") == []
    assert kit.json("stats")["entries"] == 0
    assert kit.json("verify") == {"entries": 0, "damaged": [], "lost_bytes": 0}
    assert kit.json("purge", "--all") == {"purged": 0, "dry_run": False}
    assert "does not exist" in kit("export", code=1)
    assert kit.json("why", json.dumps(chat_body()), code=1)["verdict"] == "MISS"
    assert not kit.cache_dir.exists(), "looking makes nothing"


def test_looking_while_a_proxy_works(kit: Kit, front: Proxy) -> None:
    filled(front)
    eventually_stored(kit, 3)
    rows = kit.json("ls")
    assert [row["path"] for row in rows] == ["/v1/embeddings", CHAT, CHAT]
    assert [row["stream"] for row in rows] == [False, True, False]
    assert [row["path"] for row in kit.json("ls", "--limit", "1")] == ["/v1/embeddings"]
    assert len(kit.json("ls", "--path", CHAT)) == 2
    assert "2 more" in kit("ls", "--limit", "1")
    shown = kit.json("show", rows[2]["key"][:6])
    assert shown["request"]["messages"] == [{"role": "user", "content": "first"}]
    assert json.loads(shown["body"])["choices"][0]["message"]["content"] == "you said first"
    assert "you said first" in kit("show", rows[2]["key"])
    assert "data: [DONE]" in kit("show", rows[1]["key"], "--body")
    assert "No stored answer" in kit("show", "0" * 12, code=1)
    assert kit.json("verify")["entries"] == kit.json("stats")["entries"] == 3


def test_why_agrees_with_the_proxy(kit: Kit, front: Proxy) -> None:
    filled(front)
    eventually_stored(kit, 3)
    tool = {"name": "f", "description": "finds a file"}
    hit = kit.why(chat_body("first", temperature=0, tools=[tool], user="me"), code=0)
    assert (hit["verdict"], hit["stored"]["age_seconds"] < 60) == ("HIT", True)
    asked = chat_body("first", temperature=0, tools=[{**tool, "description": "finds the file"}])
    miss = kit.why(asked)
    assert (miss["verdict"], miss["stored"]["key"]) == ("MISS", hit["key"])
    assert miss["differences"] == [
        {"path": "tools[0].description", "stored": '"finds a file"', "asked": '"finds the file"'}
    ]
    assert front.ask(asked).cache == "MISS", "and so it is"
    spoken = kit("why", json.dumps(asked | {"temperature": 1}), *kit.alone, code=1)
    assert "temperature: 0 -> 1" in spoken
    counted = chat_body("second", stream=True, stream_options={"include_usage": True})
    assert "token counts" in kit.why(counted)["reason"]
    assert kit.why({"input": "x"}, "--path", "/v1/audio/speech")["verdict"] == "BYPASS"
    line = {"path": "/v1/embeddings", "body": {"model": "e", "input": "text"}}
    assert kit.why(line, code=0)["verdict"] == "HIT"


def test_why_sees_callers_models_and_rules(kit: Kit, front: Proxy) -> None:
    front.ask(chat_body("mine"), headers={"Authorization": "Bearer sk-mine"})
    front.ask(chat_body("anybody's"))
    eventually_stored(kit, 2)
    keys = {"CALLER": "sk-mine", "OTHER": "sk-yours"}
    found = kit.why(chat_body("mine"), "--caller-key-env", "CALLER", code=0, environ=keys)
    assert found["verdict"] == "HIT"
    assert "API key" in kit.why(chat_body("mine"))["reason"]
    other = kit.why(chat_body("anybody's"), "--caller-key-env", "OTHER", environ=keys)
    assert "without an API key" in other["reason"]
    assert "served in another way" in kit.json("why", json.dumps(chat_body("anybody's")), code=1)["reason"]
    rules = {"CACHE_POLICY": json.dumps({CHAT: "deterministic"})}
    assert "temperature" in kit.why(chat_body("anybody's"), environ=rules)["reason"]
    assert "record" in kit.why(chat_body("anybody's"), environ={"CACHE_MODE": "record"})["reason"]
    front.ask(chat_body("Message time: 2026-11-21T08:05:15Z"))
    eventually_stored(kit, 3)
    later = chat_body("Message time: 2026-11-21T08:05:16Z")
    assert kit.why(later, code=0)["verdict"] == "HIT"
    kit.write(cache_policy={CHAT: "off"})
    assert "cache_policy" in kit.json("why", json.dumps(chat_body("anybody's")), code=1)["reason"]


def test_why_knows_the_parts_of_keys(kit: Kit, server: Stub, env: dict[str, str]) -> None:
    """Where callers have keys of ours, each has a part of the cache, named by the key's id."""
    kit.endpoint, path = server.url, kit.home / KEYS_FILE
    write_keys(path, entry("infer"), entry("second"))
    keyed = {"LLMPOD_AUTH": "keys", "LLMPOD_KEYS_FILE": str(path)}
    with proxy(env | settings(kit.cache_dir, server.url) | keyed) as front:
        asked = front.ask(chat_body("mine"), headers={"Authorization": f"Bearer {KEYS['infer']}"})
        assert asked.status == 200
        eventually_stored(kit, 1)
        environ = keyed | {"MINE": KEYS["infer"], "OTHER": KEYS["second"], "NONE": "sk-local-unknown"}
        mine = kit.why(chat_body("mine"), "--caller-key-env", "MINE", code=0, environ=environ)
        assert mine["verdict"] == "HIT"
        other = kit.why(chat_body("mine"), "--caller-key-env", "OTHER", environ=environ)
        assert "for the key infer" in other["reason"]
        assert "for the key infer" in kit.why(chat_body("mine"), environ=environ)["reason"]
        refused = kit("why", "{}", *kit.alone, "--caller-key-env", "NONE", code=1, environ=environ)
        assert "does not know this key" in refused


def test_why_names_a_rule_that_is_off(kit: Kit, server: Stub, env: dict[str, str]) -> None:
    kit.endpoint = server.url
    off = {"CACHE_MASKS": "none"}
    with proxy({**env, **settings(kit.cache_dir, server.url), **off}) as front:
        front.ask(chat_body("Message time: 2026-11-21T08:05:15Z"))
        eventually_stored(kit, 1)
    later = chat_body("Message time: 2026-11-21T08:05:16Z")
    found = kit.why(later, environ=off)
    assert "the rule kilo-time" in found["reason"]
    assert found["differences"][0]["path"] == "messages[0].content"
    assert "the rule" not in kit.why(chat_body("else"), environ=off)["reason"]


def test_purging_reaches_a_running_proxy(kit: Kit, front: Proxy) -> None:
    filled(front)
    eventually_stored(kit, 3)
    assert kit.json("purge", "--path", CHAT, "--dry-run") == {"purged": 2, "dry_run": True}
    assert kit.json("purge", "--older-than", "1h")["purged"] == 0
    assert kit.json("purge", "--path", CHAT)["purged"] == 2
    assert front.ask(chat_body("second", stream=True)).cache == "MISS"
    assert front.ask({"model": "e", "input": "text"}, path="/v1/embeddings").cache == "HIT"
    eventually_stored(kit, 2)
    assert "0 answers" in kit("purge", "0" * 64, code=1)
    assert kit.json("purge", kit.json("ls")[0]["key"][:8])["purged"] == 1
    assert kit.json("purge", "--all")["purged"] == 1
    assert front.get("/health").json["cache_entries"] == 0
    assert front.ask({"model": "e", "input": "text"}, path="/v1/embeddings").cache == "MISS"
    assert "Say which ones" in kit("purge", code=1)
    assert "Say which ones" in kit("purge", "--all", "--model", "m", code=1)


def test_export_and_import(kit: Kit, server: Stub, env: dict[str, str], tmp_path: Path) -> None:
    environ = {**env, **settings(kit.cache_dir, server.url)}
    with proxy(environ) as front:
        filled(front)
        front.ask(chat_body("two\u2028lines"))
        eventually_stored(kit, 4)
        copy = tmp_path / "copy.jsonl"
        assert "4 answers" in kit("export", str(copy))
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert "exists" in kit("export", str(copy), code=1)
        assert "Stop that proxy first" in kit("import", str(copy), code=75), "a proxy writes there"
    assert kit("export") == copy.read_text()
    assert kit.json("purge", "--all")["purged"] == 4
    assert kit.json("import", str(copy)) == {"added": 4, "left": 0}
    assert kit.json("import", str(copy)) == {"added": 0, "left": 4}
    calls = len(server.turns)
    with proxy(environ) as front:
        assert front.ask(chat_body("two\u2028lines")).cache == "HIT"
    assert len(server.turns) == calls


def test_damage_is_an_exit_code(kit: Kit, front: Proxy) -> None:
    filled(front)
    eventually_stored(kit, 3)
    path = next(kit.cache_dir.glob("*.seg"))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"you said first", b"you said wurst"))
    assert "damaged" in kit("verify", code=1)
    assert [row["reason"] for row in kit.json("verify", code=1)["damaged"]] == ["the MAC does not match"]


def test_from_a_shell(kit: Kit, front: Proxy, env: dict[str, str]) -> None:
    filled(front)
    eventually_stored(kit, 3)
    script = f"'{PYTHON}' '{ROOT}/manage_pod.py' --config '{kit.home}/pod_config.json' cache"
    body = kit.home / "request.json"
    body.write_text(json.dumps(chat_body("second")))
    more = f"--endpoint {kit.endpoint} --dir '{kit.cache_dir}'"
    for source in (f"why {more} - < '{body}'", f"why {more} '@{body}'", f"why {more} '{body}'"):
        done = run(["sh", "-c", f"{script} {source}"], env=env)
        assert "token counts" in done.out, "stored as a stream, asked as a document"
    done = run(["sh", "-c", f"{script} why {more} nowhere.json"], env=env)
    assert "Cannot read nowhere.json" in done.err
