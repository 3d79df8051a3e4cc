"""`doctor --as-cron` finds each planted misconfiguration, alone, and names the mend; where it can be typed, it is."""

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.manager.account import MANAGER, Account, Diagnosis, account, cron_daemon
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


# --- how each is planted; what it returns goes into the environment of the terminal
Environ = dict[str, str]


def readme_line(ann: Account) -> str:
    return f"*/5 * * * * python3 {MANAGER} --config {ann.install.path} >> $HOME/l.log 2>&1"


def only_exported(ann: Account) -> Environ:
    key = ann.key_file.read_text().strip()
    ann.key_file.unlink()
    ann.by_hand(readme_line(ann))
    return {"RUNPOD_API_KEY": key}


def lost_key_file(ann: Account) -> Environ:
    """The installed line names the file, since it is not where cron's own HOME would lead."""
    ann.key_file.unlink()
    return {}


def open_key_file(ann: Account) -> Environ:
    ann.key_file.chmod(0o644)
    return {}


def empty_key_file(ann: Account) -> Environ:
    ann.key_file.write_text("\n")
    return {}


def revoked_key(ann: Account) -> Environ:
    ann.key_file.write_text("rpa_was_good_until_yesterday\n")
    return {}


def relative_config(ann: Account) -> Environ:
    ann.by_hand(f"*/5 * * * * python3 {MANAGER} --config pod_config.json >> $HOME/l.log 2>&1")
    return {}


def relative_script(ann: Account) -> Environ:
    ann.by_hand(f"*/5 * * * * python3 manage_pod.py --config {ann.install.path} >> $HOME/l.log 2>&1")
    return {}


def unescaped_percent(ann: Account) -> Environ:
    ann.by_hand(f"*/5 * * * * python3 {MANAGER} --config {ann.install.path} >> $HOME/l.$(date +%d) 2>&1")
    return {}


def missing_log_directory(ann: Account) -> Environ:
    ann.by_hand(
        f"*/5 * * * * python3 {MANAGER} --config {ann.install.path} >> {ann.home}/gone/l.log 2>&1".replace(
            str(ann.home), "$HOME"
        )
    )
    return {}


def unwritable_log(ann: Account) -> Environ:
    """A file where the directory should be: root, who runs these tests here, may write anywhere else."""
    directory = ann.home / ".local/state/llmpod"
    shutil.rmtree(directory)
    directory.write_text("in the way")
    return {}


def no_python_in_path(ann: Account) -> Environ:
    ann.by_hand(f"PATH=/nowhere\n*/5 * * * * python3 {MANAGER} --config {ann.install.path}")
    return {}


def lost_interpreter(ann: Account) -> Environ:
    ann.table.write_text(ann.table.read_text().replace(PYTHON, "/opt/moved/.venv/bin/python"))
    return {}


def open_state(ann: Account) -> Environ:
    (ann.install.directory / "pod_state.json").chmod(0o644)
    return {}


def torn_state(ann: Account) -> Environ:
    path = ann.install.directory / "pod_state.json"
    path.write_text(path.read_text()[:50])
    return {}


def newer_state(ann: Account) -> Environ:
    path = ann.install.directory / "pod_state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    return {}


def foreign_state(ann: Account) -> Environ:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(ann.install.directory / "pod_state.json", 12345, -1)
    return {}


def torn_orders(ann: Account) -> Environ:
    next(ann.install.directory.rglob("orders.json")).write_text('{"default"')
    return {}


def open_directory(ann: Account) -> Environ:
    next(ann.install.directory.rglob("orders.json")).parent.chmod(0o755)
    return {}


def wrong_clock(ann: Account) -> Environ:
    ann.install.sim.advance(600)
    return {}


def wrong_config(ann: Account) -> Environ:
    ann.install.write(runtime_secnds=60)
    return {}


def both_schedules(ann: Account) -> Environ:
    table = ann.table.read_text()
    ann.manage("schedule", "remove").expect()
    ann.manage("schedule", "install", "systemd")
    ann.table.write_text(table)
    (ann.home / ".local/state/llmpod").mkdir(mode=0o700)
    return {}


def lost_variable(ann: Account) -> Environ:
    return {"HF_TOKEN": "hf_only_here"}


def no_api(ann: Account) -> Environ:
    ann.install.write(runpod_api_url="http://127.0.0.1:9")
    return {}


def no_passes(ann: Account) -> Environ:
    path = ann.install.directory / "pod_state.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "last_pass": document["last_pass"] - 3600}))
    return {}


@dataclass(frozen=True)
class Plant:
    """One misconfiguration: what names it, and whether the mend is typed and has to help."""

    plant: Callable[[Account], Environ]
    check: str
    found: str
    mend: str
    also: frozenset[str] = frozenset()
    typed: bool = False
    pod: bool = False
    status: str = "problem"


CROND = r"crontab -e .*schedule install cron"
PLANTS = [
    Plant(
        only_exported, "key", r"exported in this terminal", r"umask 077 && cat > .*runpod_api_key", typed=True
    ),
    Plant(lost_key_file, "key", r"does not exist", r"umask 077 && cat > .*runpod_api_key", typed=True),
    Plant(open_key_file, "key", r"Others may read", r"chmod 600 .*runpod_api_key", typed=True),
    Plant(empty_key_file, "key", r"is empty", r"umask 077 && cat > .*runpod_api_key", typed=True),
    Plant(revoked_key, "api", r"401", r"cat > .*new key", typed=True),
    Plant(
        relative_config,
        "line",
        r"configuration pod_config.json is a relative path",
        CROND,
        frozenset({"config"}),
    ),
    Plant(relative_script, "line", r"script manage_pod.py is a relative path", CROND, frozenset({"command"})),
    Plant(unescaped_percent, "line", r"unescaped %", CROND, frozenset({"command"})),
    Plant(
        missing_log_directory,
        "log",
        r"cannot be written",
        r"mkdir -p .*gone",
        frozenset({"command"}),
        typed=True,
    ),
    Plant(unwritable_log, "log", r"cannot be written", r"file is in the way"),
    Plant(no_python_in_path, "command", r"python3.*not found", r"schedule install cron"),
    Plant(lost_interpreter, "command", r"/opt/moved.*not found", r"schedule install cron", typed=True),
    Plant(open_state, "state", r"mode 0644", r"chmod 600", typed=True, pod=True),
    Plant(
        torn_state, "state", r"Cannot read", r"manage_pod.py --config .*a pass rebuilds", typed=True, pod=True
    ),
    Plant(newer_state, "state", r"newer llmpod", r"git .* pull && make", pod=True),
    Plant(foreign_state, "state", r"belongs to user 12345", r"chown", pod=True),
    Plant(torn_orders, "orders", r"Cannot read", r"manage_pod.py .* down", typed=True, pod=True),
    Plant(open_directory, "directory", r"mode 0755", r"chmod 700", typed=True, pod=True),
    Plant(wrong_clock, "clock", r"60\d s behind", r"set-ntp true"),
    Plant(wrong_config, "config", r"runtime_seconds", r"EDITOR.*pod_config.json"),
    Plant(both_schedules, "schedule", r"both systemd and cron", r"schedule remove", frozenset({"timer"})),
    Plant(lost_variable, "environment", r"HF_TOKEN", r"set hf_token", status="warning"),
    Plant(no_api, "api", r"Cannot reach", r"curl"),
    Plant(no_passes, "passes", r"1 h 00 m ago; 1 pod", r"manage_pod.py", typed=True, pod=True),
]


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
