"""The demo and an installation in one directory: neither takes the other for itself, and each tells of the other."""

import json
import signal
from pathlib import Path

from tests.support import procfs
from tests.support.forks import Forks
from tests.support.net import free_port, listens
from tests.support.process import PYTHON, Finished, running
from tests.support.source import ROOT
from tests.support.wait import eventually


def test_everyday_commands_beside_a_demo(env: dict[str, str], forks: Forks, tmp_path: Path) -> None:
    path, port = tmp_path / "pod_config.json", free_port()
    config = {"model": "org/mine", "proxy_port": port, "cache_dir": str(tmp_path / "cache")}
    path.write_text(json.dumps(config))
    script = [PYTHON, str(ROOT / "manage_pod.py"), "--config", str(path)]

    def said(*words: str, code: int = 0) -> Finished:
        return forks.run([*script, *words], env=env, within=60).expect(code)

    start = [*script, "run", "--port", str(port)]
    with running(start, env=env) as demo:
        demo.says("Ctrl-C stops", within=60)
        where = f"http://localhost:{port}/v1 with the model demo/tiny-chat (pid {demo.pid}"
        status = said("status").out
        assert f"demo     runs at {where}" in status
        assert "default  stopped  org/mine  (no orders)" in status
        assert "nothing was started from here yet" in status
        (shown,) = json.loads(said("status", "--json").out)["demos"]
        assert shown == {"pid": demo.pid, "url": f"http://localhost:{port}/v1", "model": "demo/tiny-chat"}
        doctor = said("doctor", code=1).out
        assert f"demo        runs at {where}" in doctor
        assert f"port {port} is taken by a demo" in doctor
        assert f"kill -INT {demo.pid}" in doctor
        cost = said("cost").out
        assert f"cache          unknown (a demo listens on port {port}" in cost
        assert "Nothing was started from here yet" in cost
        assert f"A demo runs at {where}" in said("connect", "curl").err
        home = tmp_path / ".llmpod" / f"demo-{demo.pid}"
        assert f"cache ls --dir {home / 'cache'}" in said("cache", "ls").out
        assert "demo/tiny-chat" in said("cache", "ls", "--dir", str(home / "cache")).out
        second = said("run", "--port", str(port), code=98)
        assert f"Port {port} is in use by a demo, which runs at {where}" in second.err
        assert second.out == "", "before anything else"
        assert "make run RUN_ARGS='--port N'" in second.err
        assert demo.code is None
        assert demo.stop(within=60) == 0
    assert "demo" not in said("status").out
    assert f"not wanted now; port {port} is free" in said("doctor", code=1).out
    assert "nothing listens on port" in said("cost").out
    assert not list((tmp_path / ".llmpod").glob("demo-*"))


def test_a_demo_that_is_killed_leaves_nothing(env: dict[str, str], tmp_path: Path) -> None:
    path, port = tmp_path / "pod_config.json", free_port()
    with running(
        [PYTHON, str(ROOT / "manage_pod.py"), "--config", str(path), "demo", "--port", str(port)], env=env
    ) as demo:
        demo.says("Ctrl-C stops", within=60)
        theirs = [process for process in procfs.descendants(demo.pid) if not process.is_zombie]
        assert listens(port)
        assert theirs
        demo.signal(signal.SIGKILL)

        def left() -> list[procfs.Process]:
            now = [(known, procfs.read(known.pid)) for known in theirs]
            return [it for known, it in now if it and it.started == known.started and not it.is_zombie]

        eventually(lambda: not left() and not (tmp_path / ".llmpod").exists(), within=40)
        assert not listens(port)
