"""Where the proxy refuses to be at all, and the command that makes keys."""

import json
import time
from pathlib import Path

import pytest

from llmpod.config import KEYS_FILE
from tests.proxy.front import SCRIPT, proxy, settings
from tests.proxy.keys import call, entry, write_keys
from tests.proxy.stub import CHAT, stub
from tests.support.forks import Forks
from tests.support.process import PYTHON, run
from tests.support.source import ROOT
from tests.support.wait import eventually


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, ["keys", "TLS"]),
        ({"LLMPOD_AUTH": "same-user"}, ["keys", "TLS"]),
        ({"LLMPOD_AUTH": "keys"}, ["keys", "TLS"]),
        ({"LLMPOD_AUTH": "keys", "filled": "1"}, ["without TLS"]),
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - refused, or meant
def test_it_refuses_to_be_open_to_the_world(
    tmp_path: Path, env: dict[str, str], host: str, more: dict[str, str], words: list[str]
) -> None:
    keys = tmp_path / "keys.json"
    if more.pop("filled", ""):
        write_keys(keys, entry("infer"))
    environ = env | settings(
        tmp_path / "c", "http://127.0.0.1:1", LLMPOD_HOST=host, LLMPOD_KEYS_FILE=str(keys)
    )
    ended = run([PYTHON, SCRIPT], env=environ | more)
    assert ended.code == 78
    assert all(word in ended.err for word in [*words, "allow_insecure_bind"])


def test_unless_it_is_told_loudly(cache_dir: Path, env: dict[str, str]) -> None:
    more = {"LLMPOD_HOST": "0.0.0.0", "LLMPOD_ALLOW_INSECURE_BIND": "true"}  # noqa: S104 - as above
    with stub() as server, proxy(env | settings(cache_dir, server.url, **more)) as front:
        assert [line for line in front.logs() if line["event"] == "insecure_bind"]
        assert front.get("/livez").status == 200


def test_a_file_of_keys_that_others_may_read_is_refused(tmp_path: Path, env: dict[str, str]) -> None:
    keys = tmp_path / "keys.json"
    write_keys(keys, entry("infer"))
    keys.chmod(0o644)
    environ = settings(tmp_path / "c", "http://127.0.0.1:1", LLMPOD_AUTH="keys", LLMPOD_KEYS_FILE=str(keys))
    ended = run([PYTHON, SCRIPT], env=env | environ)
    assert (ended.code, "chmod 600" in ended.err) == (78, True)


def test_the_command_for_keys(tmp_path: Path, env: dict[str, str], forks: Forks) -> None:
    """add, list, rotate, revoke, against a proxy that follows the file."""
    config = tmp_path / "pod_config.json"
    config.write_text(json.dumps({"model": "a/b", "auth": "keys"}))

    def keys(*words: str, code: int = 0) -> str:
        ended = forks.run([PYTHON, ROOT / "manage_pod.py", "--config", str(config), "keys", *words], env=env)
        assert (ended.code, "Traceback" in ended.err) == (code, False), ended.err
        return ended.out + ended.err

    def secret(said: str) -> str:
        return next(word for word in said.split() if word.startswith("sk-local-"))

    assert "no keys" in keys("list")
    first = secret(
        keys("add", "laptop", "--scope", "infer", "--expires", "30d", "--requests-per-minute", "60")
    )
    assert "already" in keys("add", "laptop", code=78)
    path = tmp_path / ".llmpod/pod_state" / KEYS_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert first not in path.read_text()
    listed = json.loads(keys("list", "--json"))
    assert [(key["name"], key["scopes"], key["requests_per_minute"]) for key in listed] == [
        ("laptop", ["infer"], 60)
    ]
    environ = settings(tmp_path / "c", LLMPOD_AUTH="keys", LLMPOD_KEYS_FILE=str(path))
    with stub() as server, proxy(env | environ | {"RUNPOD_ENDPOINT": server.url}) as front:
        assert call(front, CHAT, {"x-api-key": first}).status == 200
        second = secret(keys("rotate", "laptop"))
        eventually(lambda: call(front, CHAT, {"x-api-key": second}).status == 200)
        assert call(front, CHAT, {"x-api-key": first}).status in (401, 429)
        keys("revoke", "laptop")
        eventually(lambda: call(front, CHAT, {"x-api-key": second}).status in (401, 429))
    assert "no key laptop" in keys("revoke", "laptop", code=1)
    keys("add", "old", "--expires", "0h")
    assert "--expires 30d" in keys("rotate", "old", code=78)
    keys("rotate", "old", "--expires", "30d")
    assert json.loads(keys("list", "--json"))[0]["expires"] > time.time() + 29 * 86400
