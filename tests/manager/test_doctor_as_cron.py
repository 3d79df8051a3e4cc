"""`doctor --as-cron` finds each planted misconfiguration, alone, and names the mend; where it can be typed, it is."""

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.manager.account import MANAGER, Account, Diagnosis, account, cron_daemon
from tests.manager.plants import PLANTS, Plant, open_directory, readme_line
from tests.support.install import Install
from tests.support.process import PYTHON, run


@pytest.fixture
def ann(install: Install, tmp_path: Path) -> Iterator[Account]:
    """Scheduled by cron, and a cron that runs."""
    found = account(install, tmp_path / "ann's 100% home")
    found.manage("schedule", "install", "cron").expect()
    with cron_daemon(found):
        yield found


def give_pod(ann: Account) -> None:
    """A pod and a state file by one pass; the proxy is somebody else's, until a pass without that word starts it."""
    ann.table.write_text(ann.table.read_text().replace("manage_pod.py ", "manage_pod.py --no-proxy "))
    ann.manage("--no-proxy").expect()
    ann.install.proxy = True  # what a mend starts is ended with the test


def test_a_healthy_installation_raises_no_alarm(ann: Account) -> None:
    ann.install.proxy = True
    ann.manage().expect()
    for arguments in ((), ("--as-cron",)):
        seen = ann.doctor(*arguments)
        assert (seen.code, seen.wrong) == (0, [])
        names = {check["name"] for check in seen.document["checks"]}
        assert names >= {
            "config", "key", "api", "clock", "pods", "lock", "state", "orders", "directory", "proxy", "cache",
            "disk", "schedule", "log", "cron", "passes", "switch", "python",
        }  # fmt: skip
        assert ann.install.sim.key not in json.dumps(seen.document)


def test_a_line_written_by_hand_after_the_readme_raises_none_either(ann: Account) -> None:
    ann.by_hand(readme_line(ann))
    assert ann.doctor("--as-cron").wrong == []


def test_it_changes_nothing_that_it_finds(ann: Account) -> None:
    give_pod(ann)
    open_directory(ann)
    for _ in range(2):
        assert "mode 0755" in ann.doctor("--as-cron").of("directory")["found"]
        assert "mode 0755" in ann.doctor().of("directory")["found"]


@pytest.mark.parametrize("case", PLANTS, ids=lambda case: case.plant.__name__)
def test_each_misconfiguration_is_found_and_its_mend_named(ann: Account, case: Plant) -> None:
    if case.pod:
        give_pod(ann)
    more = case.plant(ann)
    seen = ann.doctor("--as-cron", more=more)
    finding = seen.of(case.check)
    assert finding["status"] == case.status, seen.document
    assert re.search(case.found, finding["found"]), finding
    assert re.search(case.mend, finding["mend"]), finding
    assert set(seen.wrong) <= {case.check} | case.also, "nothing that is well is blamed"
    assert seen.code == (1 if case.status == "problem" else 0)
    assert all(check["mend"] for status in ("problem", "warning") for check in seen.all(status))
    if case.typed:
        ann.shell(finding["mend"])
        assert ann.doctor("--as-cron").all("problem") == []


def test_a_port_that_a_stranger_holds(ann: Account) -> None:
    with socket.create_server(("127.0.0.1", ann.install.port)):
        seen = ann.doctor("--as-cron")
    finding = seen.of("proxy")
    assert (finding["status"], seen.wrong) == ("problem", ["proxy"])
    assert f"port {ann.install.port} is taken by" in finding["found"]
    assert f"pid {os.getpid()}" in finding["found"]
    assert "another proxy_port" in finding["mend"]


@pytest.mark.component
def test_no_cron_on_the_machine(ann: Account) -> None:
    """Seen from a process namespace of its own, in which neither the machine's cron nor another test's runs."""
    alone = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespace can be made here")
    argv = [*alone, PYTHON, str(MANAGER), "--config", str(ann.install.path), "doctor", "--as-cron", "--json"]
    seen = Diagnosis.of_json(run(argv, env=ann.environ, within=90).expect(1))
    assert seen.wrong == ["cron"]
    assert "cron start" in seen.of("cron")["mend"]


def fill(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


@pytest.mark.component
def test_a_full_disk(ann: Account, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "llmpod-test", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        ann.install.write(state_file=str(disk / "pod_state.json"))
        ann.manage("schedule", "remove").expect()
        ann.manage("schedule", "install").expect()
        fill(disk / "ballast")
        seen = ann.doctor("--as-cron")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert "No space left" in seen.of("directory")["found"]
    assert "df -h" in seen.of("directory")["mend"]
    assert seen.of("disk")["status"] == "problem"


def test_nothing_scheduled_is_looked_at_by_the_readmes_line(install: Install, tmp_path: Path) -> None:
    found = account(install, tmp_path / "home")
    seen = found.doctor("--as-cron")
    assert seen.of("schedule")["status"] == "warning"
    assert "schedule install cron" in seen.of("schedule")["mend"]
    assert seen.of("python")["status"] == "ok", "the line of the README runs"


def test_a_unit_is_looked_at_by_its_own_command(install: Install, tmp_path: Path) -> None:
    found = account(install, tmp_path / "ann's 100% home")
    found.manage("schedule", "install", "systemd").expect(75)
    seen = found.doctor("--as-cron")
    assert seen.of("key")["status"] == "ok", "the credential of the unit is the key"
    assert set(seen.wrong) <= {"timer"}
    found.key_file.unlink()
    lost = found.doctor("--as-cron").of("command")
    assert lost["status"] == "problem"
    assert str(found.key_file) in lost["found"]
