"""`proxy_fastapi.py … -- COMMAND…` killed with SIGKILL: what it started is ended by what it left behind, once."""

import json
import os
import signal
from pathlib import Path

from tests.manager.test_one_command import KEY, QUESTION, SERVER, STUBBORN, is_deaf, rooms, servers, started
from tests.proxy.front import SCRIPT, Client, Proxy
from tests.support import procfs
from tests.support.forks import Forks
from tests.support.net import free_port
from tests.support.process import PYTHON
from tests.support.source import ROOT
from tests.support.wait import eventually


def ask(front: Proxy, text: str) -> int:
    """One question; a start may take a while."""
    body = {"model": "org/typed", "messages": [{"role": "user", "content": text}]}
    with Client(front.port, timeout=60) as client:
        client.send("POST", "/v1/chat/completions", json.dumps(body).encode(), KEY)
        return client.reply().status


def test_what_a_killed_run_started_is_ended_without_it(env: dict[str, str], tmp_path: Path) -> None:
    with started(env, tmp_path / "cache") as front:
        assert ask(front, "hello") == 200
        assert servers()
        os.kill(front.process.pid, signal.SIGKILL)
        eventually(lambda: not servers(), within=40)
        eventually(lambda: not rooms(front.process.pid), within=20)


def test_a_run_that_is_killed_while_its_model_loads_or_ends_leaves_nothing(
    env: dict[str, str], tmp_path: Path
) -> None:
    with started(env, tmp_path / "cache", command=STUBBORN) as front, front.client() as client:
        client.send("POST", "/v1/chat/completions", QUESTION, KEY)
        eventually(lambda: is_deaf(front.process.pid), within=40)
        front.process.signal(signal.SIGTERM)
        front.process.says("ending the model server", within=30)
        front.process.signal(signal.SIGKILL)
        eventually(lambda: not servers(), within=40)
        eventually(lambda: not rooms(front.process.pid), within=20)


def test_the_same_command_soon_after_the_kill_has_one_server(
    env: dict[str, str], forks: Forks, tmp_path: Path
) -> None:
    port = free_port()
    with started(env, tmp_path / "cache", "--port", str(port)) as front:
        assert ask(front, "hello") == 200
        (before,) = servers()
        os.kill(front.process.pid, signal.SIGKILL)
        with started(env, tmp_path / "cache", "--port", str(port)) as again:
            assert ask(again, "something else") == 200
            (after,) = servers()
            twice = forks.run([PYTHON, str(SCRIPT), "--port", str(port), "--", *SERVER], env=env)
            assert (twice.code, "Another one runs" in twice.err) == (98, True)
            assert after.pid != before.pid
            os.kill(again.process.pid, signal.SIGTERM)
            assert again.process.wait(within=40) == 0
            assert "nothing is left running" in again.process.err
        assert servers() == []
        assert not list((ROOT / ".llmpod").glob(f"on-demand-{port}*"))


def test_what_a_killed_run_left_is_not_forgotten_in_an_environment_that_is_wrong(
    env: dict[str, str], forks: Forks, tmp_path: Path
) -> None:
    port = free_port()
    with started(env, tmp_path / "cache", "--port", str(port)) as front:
        assert ask(front, "hello") == 200
        (before,) = servers()
        heirs = [p for p in procfs.descendants(os.getpid()) if "heir.py" in p.command]
        for pid in (*(p.pid for p in heirs if f"on-demand-{port}" in p.command), front.process.pid):
            os.kill(pid, signal.SIGKILL)
        wrong = {**env, "RUNPOD_API_BASE_URL": "nonsense"}
        said = forks.run([PYTHON, str(SCRIPT), "--port", str(port), "--", *SERVER], env=wrong)
        assert "runpod_api_url" in said.err
        assert [p.pid for p in servers()] == [before.pid], "nobody could end it"
        with started(env, tmp_path / "cache", "--port", str(port)) as again:
            assert (again.get("/livez").status, servers()) == (200, []), "it was known all the time"
            os.kill(again.process.pid, signal.SIGTERM)
            assert again.process.wait(within=40) == 0
    assert not list((ROOT / ".llmpod").glob(f"on-demand-{port}*"))
