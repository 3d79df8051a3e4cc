"""`panic` ends every pod of ours, whatever else is broken, and touches no other."""

import shutil
import signal
from pathlib import Path

import pytest

from llmpod.sim.launch import Simulator
from tests.support.forks import Forks
from tests.support.install import Install
from tests.support.wait import eventually

STRANGER = {
    "name": "somebody-else",
    "image": "vllm/vllm-openai:v0.29.0",
    "gpu": {"id": "NVIDIA L4", "count": 1},
    "disk": 60,
}


def stranger(install: Install, name: str = "somebody-else") -> str:
    return str(install.console("POST", "/v2/pods", {**STRANGER, "name": name})["id"])


def alive(install: Install) -> set[str]:
    return {pod["id"] for pod in install.sim.alive()}


def test_every_pod_of_ours_ends_and_no_other(install: Install) -> None:
    install.passes_until("ready")
    foreign = stranger(install)
    done = install.manage("panic").expect()
    assert "1 terminated" in done.out
    assert alive(install) == {foreign}
    assert "down" in install.manage().expect().out, "cron does not start it again"


def test_without_a_state_file(install: Install) -> None:
    install.passes_until("ready")
    (install.directory / "pod_state.json").unlink()
    install.manage("panic").expect()
    assert alive(install) == set()


@pytest.mark.parametrize("content", ["{", '{"schema": 99}', ""])
def test_with_a_state_file_that_nobody_can_read(install: Install, content: str) -> None:
    install.passes_until("ready")
    (install.directory / "pod_state.json").write_text(content)
    install.manage("panic").expect()
    assert alive(install) == set()


def test_a_renamed_pod_is_known_by_its_id(install: Install) -> None:
    pod = install.passes_until("ready")["pod_id"]
    install.console("PATCH", f"/v2/pods/{pod}", {"name": "my-favourite"})
    install.manage("panic").expect()
    assert alive(install) == set()


def test_with_a_configuration_that_nobody_can_read(install: Install) -> None:
    install.passes_until("ready")
    install.write(bogus=1)
    install.manage("panic").expect()
    assert alive(install) == set()


def test_the_other_installations_only_when_told(
    install: Install, fast_sim: Simulator, tmp_path: Path, env: dict[str, str]
) -> None:
    install.passes_until("ready")
    directory = tmp_path / "other"
    directory.mkdir(mode=0o700)
    other = Install(directory, fast_sim, env, start=install.start)
    other.passes_until("ready")
    foreign = stranger(install)
    shutil.rmtree(install.directory / ".llmpod")
    (install.directory / "pod_state.json").unlink()
    assert "--every-installation" in install.manage("panic").expect().out
    assert len(alive(install)) == 3, "with its mark lost, nothing is known to be ours"
    refused = install.manage("panic", "--every-installation")
    assert refused.code == 1
    assert "--yes" in refused.err
    install.manage("panic", "--every-installation", "--yes").expect()
    assert alive(install) == {foreign}


def test_a_hanging_pass_does_not_keep_it(install: Install, forks: Forks) -> None:
    """The pods end meanwhile; then it waits for the lock, lest that pass makes another one."""
    install.passes_until("ready")
    before = len(install.sim.requests())
    install.sim.fault("list", "hang")
    with forks.running(install.argv(), env=install.environ) as hanging:
        eventually(lambda: len(install.sim.requests()) > before, within=20)
        with forks.running(install.argv("panic"), env=install.environ) as panic:
            eventually(lambda: alive(install) == set(), within=20)
            assert (hanging.code, panic.code) == (None, None)
            hanging.signal(signal.SIGKILL)
            assert panic.wait(within=60) == 0
    assert alive(install) == set()


def test_api_faults_are_outlasted(install: Install) -> None:
    install.passes_until("ready")
    install.sim.fault("list", "500", times=3)
    install.sim.fault("delete", "dropped", times=3)
    install.manage("panic").expect()
    assert alive(install) == set()
