"""Not tests: misconfigurations, each as a function that makes a healthy account into one that has it."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.manager.account import MANAGER, Account
from tests.support.process import PYTHON

Environ = dict[str, str]  # what the terminal has exported besides


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
