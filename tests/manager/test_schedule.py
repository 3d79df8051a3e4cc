"""`schedule`: cron and systemd are asked to run the watchdog, never both, and nothing is left when they are not."""

import re
from pathlib import Path

import pytest

from tests.manager.account import MANAGER, Account, account
from tests.support.install import Install
from tests.support.process import running
from tests.support.wait import eventually


@pytest.fixture
def ann(install: Install, tmp_path: Path) -> Account:
    return account(install, tmp_path / "ann's home")


def files_of(ann: Account) -> set[Path]:
    """What lies about in the account that a schedule may have brought."""
    places = (ann.home / ".local", ann.home / ".config")
    return {path for place in places for path in place.rglob("*") if path.is_file() or path.is_symlink()}


def test_cron_gets_its_lines_once_and_foreign_ones_stay(ann: Account) -> None:
    said = ann.manage("schedule", "install", "cron").expect().out
    table = ann.table.read_text()
    assert table.startswith(ann.foreign)
    block = table.removeprefix(ann.foreign)
    ids = set(re.findall(r"llmpod ([0-9a-f]{8})", block))
    assert len(ids) == 1
    assert block.count("*/5 * * * * ") == 1
    assert f"{MANAGER} --config {ann.install.path}" in block
    for hint in ("tail -F", "status", "doctor --as-cron"):
        assert hint in said
    ann.manage("schedule", "install", "cron").expect()
    assert ann.table.read_text() == table
    ann.manage("schedule", "install", "cron", "--shutdown-at", "00:00").expect()
    assert ann.table.read_text().count("\n0 0 * * * ") == 1
    assert ann.table.read_text().startswith(ann.foreign)


def test_remove_leaves_nothing(ann: Account) -> None:
    before = files_of(ann)
    ann.manage("schedule", "install", "cron").expect()
    ann.manage("--no-proxy", "--log-file", str(ann.home / ".local/state/llmpod/unrelated.log")).expect()
    (ann.home / ".local/state/llmpod/unrelated.log").unlink()
    log = ann.home / ".local/state/llmpod"
    assert log.stat().st_mode & 0o777 == 0o700
    assert "*/5" in ann.manage("schedule", "show").expect().out
    ann.manage("schedule", "remove").expect()
    assert ann.table.read_text() == ann.foreign
    assert files_of(ann) == before
    assert not log.exists()
    assert "Nothing" in ann.manage("schedule", "remove").expect().out


def test_a_crontab_that_becomes_empty_is_removed(ann: Account) -> None:
    ann.table.unlink()
    ann.manage("schedule", "install").expect()
    ann.manage("schedule", "remove").expect()
    assert not ann.table.exists()


def test_two_clones_coexist(ann: Account, install: Install) -> None:
    other_dir = install.directory.parent / "other"
    other_dir.mkdir(mode=0o700)
    clone = Install(other_dir, install.sim, install.env, start=install.start)
    bob = Account(clone, ann.home, ann.bin)
    ann.manage("schedule", "install").expect()
    alone = ann.table.read_text()
    bob.manage("schedule", "install").expect()
    assert len(set(re.findall(r"BEGIN llmpod (\w+)", ann.table.read_text()))) == 2
    bob.manage("schedule", "remove").expect()
    assert ann.table.read_text() == alone


def test_never_both(ann: Account) -> None:
    ann.manage("schedule", "install", "cron").expect()
    refused = ann.manage("schedule", "install", "systemd").expect(1)
    assert "schedule remove" in refused.err
    assert not ann.units.exists()
    ann.manage("schedule", "remove").expect()
    ann.manage("schedule", "install", "systemd").expect(75)
    table = ann.table.read_text()
    assert "schedule remove" in ann.manage("schedule", "install", "cron").expect(1).err
    assert ann.table.read_text() == table


def test_a_line_by_hand_counts_too(ann: Account) -> None:
    ann.by_hand(f"*/5 * * * * python3 {MANAGER} --config '{ann.install.path}' >> $HOME/l.log 2>&1")
    assert "crontab -e" in ann.manage("schedule", "install", "systemd").expect(1).err
    assert "line 5" in ann.manage("schedule", "show").expect().out.lower()
    assert "remove it with `crontab -e`" in ann.manage("schedule", "install", "cron").expect().out


def test_systemd_units_are_written_and_what_is_left_to_type_is_said(ann: Account) -> None:
    before = files_of(ann)
    said = ann.manage("schedule", "install", "systemd", "--shutdown-at", "0:30").expect(75).out
    assert "systemctl --user daemon-reload" in said
    assert "systemctl --user restart" in said
    assert "enable-linger" in said
    assert len(list(ann.units.glob("llmpod-*"))) == 4
    service = next(path for path in ann.units.glob("*.service") if "shutdown" not in path.name).read_text()
    assert f"LoadCredential=runpod_api_key:{ann.key_file}" in service
    again = ann.manage("schedule", "install", "systemd").expect(75)
    assert again.out
    assert len(list(ann.units.glob("llmpod-*"))) == 2, "a shutdown that is not asked for any more goes"
    timer = next(ann.units.glob("*.timer"))
    stamp = ann.home / ".local/share/systemd/timers" / f"stamp-{timer.name}"
    for left in (ann.units / "timers.target.wants" / timer.name, stamp):  # what a real systemd makes of them
        left.parent.mkdir(parents=True)
        left.touch()
    ann.manage("schedule", "remove").expect()
    assert files_of(ann) == before
    assert not ann.units.exists()


def test_a_unit_for_proxy_and_models_comes_and_goes(ann: Account) -> None:
    before = files_of(ann)
    shown = ann.manage("schedule", "install", "systemd", "--proxy", "--dry-run").expect().out
    assert '"service" "stop"' in shown
    assert files_of(ann) == before
    said = ann.manage("schedule", "install", "systemd", "--proxy").expect(75).out
    (unit,) = ann.units.glob("*-models.service")
    assert f"systemctl --user start --no-block {unit.name}" in said
    assert '"service" "stop"' in ann.manage("schedule", "show").expect().out
    wanted = ann.units / "default.target.wants" / unit.name  # what a real systemd makes of it
    for again in ([], ["--proxy"]):
        wanted.parent.mkdir(parents=True, exist_ok=True)
        wanted.touch()
        ann.manage("schedule", "install", "systemd", *again).expect(75)
        assert unit.exists() == wanted.exists() == bool(again), "what is not asked for any more goes"
    ann.manage("schedule", "remove").expect()
    assert files_of(ann) == before
    assert not ann.units.exists()


def test_cron_has_no_unit_for_the_proxy(ann: Account) -> None:
    refused = ann.manage("schedule", "install", "cron", "--proxy").expect(1)
    assert "schedule install systemd --proxy" in refused.err
    assert ann.table.read_text() == ann.foreign


@pytest.mark.parametrize("kind", ["cron", "systemd"])
def test_a_dry_run_shows_and_writes_nothing(ann: Account, kind: str) -> None:
    before, table = files_of(ann), ann.table.read_text()
    said = ann.manage("schedule", "install", kind, "--shutdown-at", "00:00", "--dry-run").expect().out
    assert "--shutdown" in said
    assert str(MANAGER) in said
    assert (files_of(ann), ann.table.read_text()) == (before, table)
    ann.manage("schedule", "install", "cron").expect()
    table = ann.table.read_text()
    assert "BEGIN llmpod" in ann.manage("schedule", "remove", "--dry-run").expect().out
    assert ann.table.read_text() == table


def test_without_crontab_it_says_what_to_install(ann: Account) -> None:
    (ann.bin / "crontab").unlink()
    (ann.bin / "only").mkdir()
    path = {"PATH": str(ann.bin / "only")}
    assert "apt install cron" in ann.manage("schedule", "install", "cron", more=path).expect(1).err
    assert "Nothing is scheduled" in ann.manage("schedule", "show", more=path).expect().out


def test_a_crontab_that_cannot_be_read_is_not_replaced(ann: Account) -> None:
    ann.program(
        "crontab",
        '#!/bin/sh\necho "cannot open the spool" >&2\ntest "$1" = -l || touch "$0.written"\nexit 1\n',
    )
    assert "cannot open the spool" in ann.manage("schedule", "install").expect(78).err
    assert not (ann.bin / "crontab.written").exists()


def test_a_wrong_configuration_is_not_scheduled_but_can_be_removed(ann: Account) -> None:
    ann.manage("schedule", "install").expect()
    ann.install.write(bogus=1)
    assert "bogus" in ann.manage("schedule", "install").expect(78).err
    ann.manage("schedule", "remove").expect()
    assert ann.table.read_text() == ann.foreign


def test_a_key_that_only_this_terminal_knows_is_warned_of(ann: Account) -> None:
    key = {"RUNPOD_API_KEY": ann.key_file.read_text().strip()}
    ann.key_file.unlink()
    said = ann.manage("schedule", "install", more=key).expect().out
    assert "WARNING" in said
    assert "umask 077" in said
    assert key["RUNPOD_API_KEY"] not in said + ann.table.read_text()


def test_a_key_file_that_a_variable_names_is_handed_on(ann: Account) -> None:
    elsewhere = ann.home / "the key"
    ann.key_file.rename(elsewhere)
    said = ann.manage("schedule", "install", more={"RUNPOD_API_KEY_FILE": str(elsewhere)}).expect().out
    assert "WARNING" not in said
    assert f"RUNPOD_API_KEY_FILE='{elsewhere}'".replace("ann's", "ann'\"'\"'s") in ann.table.read_text()


def test_the_log_is_written_and_stays_small(ann: Account) -> None:
    ann.manage("schedule", "install").expect()
    block = ann.table.read_text().removeprefix(ann.foreign).splitlines()
    command = block[1].split(maxsplit=5)[5].replace("\\%", "%")
    command = command.replace("manage_pod.py", "manage_pod.py --no-proxy", 1)
    with running(["sh", "-c", command], env=ann.environ, cwd=ann.home) as scheduled:
        eventually(
            lambda: "default created" in ann.log_file.read_text(), within=30, ignoring=FileNotFoundError
        )
        ann.install.passes_until("ready")  # which that one would stay for
        assert (scheduled.wait(within=60), scheduled.out, scheduled.err) == (0, "", "")
    log = ann.log_file
    assert log.stat().st_mode & 0o777 == 0o600
    log.write_bytes(b"x" * (2**20 + 1))
    ann.shell(command).expect()
    assert log.stat().st_size < 1000
    assert log.with_name(log.name + ".1").stat().st_size == 2**20 + 1


def test_a_log_that_cannot_be_written_does_not_keep_the_watchdog_from_working(ann: Account) -> None:
    in_the_way = ann.home / "file"
    in_the_way.touch()
    done = ann.manage("--no-proxy", "--log-file", str(in_the_way / "log")).expect()
    assert "cannot be written" in done.err
    assert "default created" in done.out
    assert len(ann.install.sim.alive()) == 1


@pytest.mark.parametrize("words", [["install", "at"], ["start"], ["install", "--shutdown-at", "25:00"], []])
def test_wrong_words_are_usage_errors(ann: Account, words: list[str]) -> None:
    assert ann.manage("schedule", *words).code == 2
    assert ann.table.read_text() == ann.foreign
    assert [path.name for path in (ann.home / ".config").iterdir()] == ["llmpod"]
