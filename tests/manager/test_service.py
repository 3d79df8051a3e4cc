"""`service start|stop`, which a unit of systemd runs: what it orders, and what it leaves as a person ordered it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.manager.test_on_request import SERVER, ask, begin
from tests.support.desk import Desk
from tests.support.forks import Forks
from tests.support.net import listens
from tests.support.wait import eventually

LISTS_A_RESTART = '#!/bin/sh\ncase "$2" in list-jobs) echo "7 $5 restart running" ;; *) exit 1 ;; esac\n'


@pytest.fixture
def desk(state_dir: Path, env: dict[str, str], tmp_path: Path, forks: Forks) -> Iterator[Desk]:
    """With the unit installed, and a systemctl that knows of no systemd."""
    programs = tmp_path / "programs"
    programs.mkdir()
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "units")}
    made = Desk(state_dir, {**env, **home, "PATH": f"{programs}:{env['PATH']}"}, start=forks.run)
    systemctl(made, "#!/bin/sh\nexit 1\n")
    yield made
    made.manage("--shutdown").expect()


def systemctl(desk: Desk, text: str) -> None:
    program = Path(desk.env["PATH"].split(":")[0]) / "systemctl"
    program.write_text(text)
    program.chmod(0o755)


def installed(desk: Desk) -> None:
    desk.manage("schedule", "install", "systemd", "--proxy").expect(75)


def pids(desk: Desk) -> set[int]:
    return {p.pid for p in desk.servers() if "sim.vllm" in p.command and not p.is_zombie}


def proxy_pid(desk: Desk) -> int:
    document = json.loads((desk.directory / "pod_state.json").read_text(encoding="utf-8"))
    return int(document["proxy"]["process"]["pid"])


def test_what_requests_start_goes_with_the_unit_and_comes_with_a_request(desk: Desk) -> None:
    begin(desk)
    installed(desk)
    assert ask(desk, "one").status == 200
    assert pids(desk)
    assert "stopped" in desk.manage("service", "stop").expect().out
    assert not pids(desk)
    assert not listens(desk.port)
    desk.manage().expect()
    assert not listens(desk.port), "the watchdog undoes nothing"
    desk.manage("service", "start").expect()
    eventually(lambda: listens(desk.port), within=20)
    assert not pids(desk)
    assert ask(desk, "two").status == 200


def test_a_restart_of_the_unit_is_one_of_the_proxy(desk: Desk) -> None:
    begin(desk)
    installed(desk)
    assert ask(desk, "one").status == 200
    models, proxy = pids(desk), proxy_pid(desk)
    systemctl(desk, LISTS_A_RESTART)
    desk.manage("service", "stop").expect()
    assert not listens(desk.port)
    desk.manage("service", "start").expect()
    assert proxy_pid(desk) != proxy
    assert pids(desk) == models
    assert ask(desk, "two").status == 200
    assert pids(desk) == models


def test_a_persons_word_outlives_the_unit(desk: Desk) -> None:
    desk.write(SERVER)
    desk.manage().expect()
    models = pids(desk)
    assert "goes on" in desk.manage("service", "stop").expect().out
    assert models
    assert pids(desk) == models, "a unit that was removed stops nothing"
    installed(desk)
    desk.manage("service", "stop").expect()
    assert not pids(desk)
    desk.manage("service", "start").expect()
    assert pids(desk), "what it had stopped, and costs nothing, is back"
    desk.manage("down").expect()
    desk.manage("service", "stop").expect()
    assert "stays down (by down)" in desk.manage("service", "start").expect().out
    assert not pids(desk)
    desk.manage("--shutdown").expect()
    said = desk.manage("service", "start").expect().out
    assert "the proxy stays down (by --shutdown)" in said
    assert not listens(desk.port)
