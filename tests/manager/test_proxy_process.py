"""The proxy as a process: started, recognised, replaced, stopped; never two, never somebody else's."""

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import requests

from tests.support import procfs
from tests.support.install import Install
from tests.support.net import free_port, listens
from tests.support.process import PYTHON, running
from tests.support.source import ROOT
from tests.support.wait import eventually

QUESTION: dict[str, Any] = {"model": "org/tiny-chat", "messages": [{"role": "user", "content": "Hello"}]}


def proxy_pid(install: Install) -> int:
    document = json.loads(install.manage("status", "--json").expect().out)
    pid: int = document["proxy"]["pid"]
    return pid


def alive(pid: int) -> bool:
    found = procfs.read(pid)
    return found is not None and not found.is_zombie


def ask(install: Install, question: dict[str, Any]) -> requests.Response:
    return requests.post(f"http://127.0.0.1:{install.port}/v1/chat/completions", json=question, timeout=30)


def answered(install: Install, question: dict[str, Any], status: int = 200) -> requests.Response:
    """The answer with that status, once the proxy has seen the manager's news."""

    def attempt() -> list[requests.Response]:  # a Response with an error status is false by itself
        answer = ask(install, question)
        return [answer] if answer.status_code == status else []

    return eventually(attempt)[0]


def test_the_chain_answers_and_its_cache_outlives_the_pod(install: Install) -> None:
    install.proxy = True
    install.passes_until("ready")
    first = answered(install, QUESTION)
    assert first.headers["X-Cache"] == "MISS"
    again = ask(install, QUESTION)
    assert (again.headers["X-Cache"], again.content) == ("HIT", first.content)
    install.manage("down").expect()
    assert install.sim.alive() == []
    hit = ask(install, QUESTION)
    assert (hit.headers["X-Cache"], hit.content) == ("HIT", first.content)
    other = {**QUESTION, "messages": [{"role": "user", "content": "Something else"}]}
    refused = answered(install, other, 503)
    assert refused.json()["error"]["code"] == "model_not_ready"
    install.manage("up").expect()
    install.passes_until("ready")
    assert answered(install, other).headers["X-Cache"] == "MISS"


def test_a_healthy_proxy_is_kept_and_a_dead_one_started_again(install: Install) -> None:
    install.proxy = True
    install.manage().expect()
    first = proxy_pid(install)
    install.manage().expect()
    assert proxy_pid(install) == first
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not alive(first))
    install.manage().expect()
    assert proxy_pid(install) != first


def test_a_proxy_that_nobody_wrote_down_is_recognised_by_its_token(install: Install) -> None:
    install.proxy = True
    install.manage().expect()
    first = proxy_pid(install)
    path = install.directory / "pod_state.json"
    document = json.loads(path.read_text())
    document["proxy"] = None
    path.write_text(json.dumps(document))
    install.manage().expect()
    eventually(lambda: not alive(first))
    assert alive(proxy_pid(install))


def test_a_changed_setting_is_handed_to_the_proxy_that_runs(install: Install) -> None:
    """Limits change while it runs; its directory does not, and needs another process."""
    install.proxy = True
    install.manage().expect()
    first = proxy_pid(install)
    install.write(max_cache_size=5, requests_per_minute=1000, proxy_memory_bytes=1)
    assert "took over changed settings" in install.manage("--verbose").expect().out
    health = requests.get(f"http://127.0.0.1:{install.port}/health", timeout=5).json()
    assert (health["pid"], health["max_cache_size"]) == (first, 5)
    eventually(
        lambda: requests.get(f"http://127.0.0.1:{install.port}/health", timeout=5).json()["memory_full"]
    )
    install.write(cache_dir="another")
    install.manage().expect()
    assert not alive(first)
    health = requests.get(f"http://127.0.0.1:{install.port}/health", timeout=5).json()
    assert (health["max_cache_size"], Path(health["cache_dir"]).name) == (5, "another")


def test_a_hung_proxy_is_killed_and_replaced(install: Install) -> None:
    install.proxy = True
    install.manage().expect()
    first = proxy_pid(install)
    os.kill(first, signal.SIGSTOP)
    install.manage(within=90).expect()
    assert not alive(first)
    assert requests.get(f"http://127.0.0.1:{install.port}/livez", timeout=5).ok


def test_a_taken_port_costs_nothing(install: Install) -> None:
    install.proxy = True
    with socket.create_server(("127.0.0.1", install.port)):
        done = install.manage().expect(98)
        assert f"Port {install.port} is in use" in done.out
        assert install.sim.alive() == []
    install.manage().expect()
    assert len(install.sim.alive()) == 1


def test_shutdown_stops_the_proxy_and_cron_leaves_it_stopped(install: Install) -> None:
    install.proxy = True
    install.passes_until("ready")
    pid = proxy_pid(install)
    install.manage("--shutdown").expect()
    assert not alive(pid)
    install.manage().expect()
    assert proxy_pid(install) is None


def test_the_proxy_never_gets_the_cloud_key(install: Install) -> None:
    install.proxy = True
    install.manage().expect()
    pid = proxy_pid(install)
    for name in ("environ", "cmdline"):
        assert install.sim.key.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()


def test_run_starts_all_answers_and_ctrl_c_leaves_nothing(env: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "pod_config.json"
    killed = tmp_path / ".llmpod" / f"demo-{2**22 + 1}"  # no pid is that large
    killed.mkdir(parents=True)
    argv = [PYTHON, str(ROOT / "manage_pod.py"), "--config", str(config), "run", "--port", str(free_port())]
    with running(argv, env=env) as demo:
        demo.says("ready, here is your first answer", within=60)
        demo.says("Ctrl-C stops", within=10)
        children = procfs.descendants(demo.pid)
        assert children
        assert demo.stop(within=60) == 0
        assert "nothing is left running" in demo.out
    eventually(lambda: not [c for c in children if alive(c.pid)])
    assert list(tmp_path.iterdir()) == []


def test_a_proxy_that_was_just_spawned_is_known_before_it_answers(install: Install) -> None:
    """A start that is interrupted while the proxy is still coming up must find it again and end it."""
    install.proxy = True
    argv = install.argv("up")
    with running(argv, env=install.environ) as manager:
        eventually(
            lambda: [c for c in procfs.descendants(manager.pid) if _is_proxy(c.pid)], within=20, every=0.001
        )
        manager.signal(signal.SIGKILL)
        manager.wait()
    install.manage("--shutdown").expect()
    eventually(lambda: not listens(install.port), within=5)
    assert not [p for p in procfs.descendants(os.getpid()) if _is_proxy(p.pid)]


def _is_proxy(pid: int) -> bool:
    try:
        return b"proxy_fastapi.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_cron_and_a_terminal_keep_the_same_proxy(install: Install) -> None:
    install.proxy = True
    install.manage().expect()
    first = proxy_pid(install)
    install.env = {**install.env, "PATH": "/usr/bin:/bin", "LANG": "C"}
    install.manage().expect()
    assert proxy_pid(install) == first
    install.manage("--shutdown").expect()
