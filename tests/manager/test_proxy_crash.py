"""The proxy crashes (F47 to F49): somebody starts it anew at once, and somebody says so when that does not help."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from llmpod.identity import process_id
from llmpod.lifecycle import proxy_warden
from llmpod.lifecycle.proxy_warden import LOG_BYTES, MAX_CRASHES, Crashes
from llmpod.lifecycle.supervision import NOTES
from tests.manager.passes import alive, creates
from tests.support.install import Install
from tests.support.net import listens
from tests.support.process import PYTHON, running
from tests.support.wait import eventually

SLOW = 20.0  # seconds that a loaded machine may need for what takes one


def proxy(install: Install) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(install.manage("status", "--json").expect().out)["proxy"]
    return document


def notes(install: Install) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((install.directory / ".llmpod/pod_state" / NOTES).read_text())
    return document


def health(install: Install) -> dict[str, Any]:
    document: dict[str, Any] = requests.get(f"http://127.0.0.1:{install.port}/health", timeout=5).json()
    return document


def successor(install: Install, pid: int) -> dict[str, Any]:
    """What the proxy says that came after this one."""

    def other() -> dict[str, Any] | None:
        said = health(install)
        return said if said["pid"] != pid else None

    return eventually(other, within=SLOW, ignoring=requests.RequestException) or {}


def resident(pid: int) -> int:
    """Kilobytes of memory."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


# --- a whole installation
def test_a_proxy_whose_loop_hangs_is_ended_by_its_watchdog_and_is_back(install: Install) -> None:
    """F48 for real: it reads its settings anew from what never ends, and so answers nobody any more."""
    install.proxy = True
    install.passes_until("ready")
    first = health(install)["pid"]
    path = install.directory / ".llmpod/pod_state/proxy_settings.json"
    text = path.read_text()
    path.unlink()
    os.mkfifo(path, 0o600)
    os.kill(first, signal.SIGHUP)

    def deaf() -> bool:
        try:
            return not requests.get(f"http://127.0.0.1:{install.port}/livez", timeout=1)
        except requests.Timeout:
            return True

    eventually(deaf, within=SLOW)
    path.unlink()
    path.touch(0o600)
    path.write_text(text)
    eventually(lambda: process_id(first) is None, within=60)
    assert successor(install, first)["status"] == "healthy"
    assert notes(install)["last_crash"]["code"] == 70
    assert '"hung"' in (install.directory / ".llmpod/pod_state/proxy.log").read_text(), "with all stacks"
    assert (len(alive(install)), creates(install)) == (1, 1), "pods are untouched"


def test_a_proxy_that_crashed_is_back_without_a_pass_and_without_a_new_pod(install: Install) -> None:
    install.proxy = True
    install.manage().expect()
    first = health(install)
    os.kill(first["pid"], signal.SIGKILL)  # as for want of memory (F49)
    second = successor(install, first["pid"])
    assert second["parent"] == first["parent"], "the same warden"
    assert resident(second["parent"]) < 20_000, "kilobytes"
    shown = proxy(install)
    assert (shown["pid"], shown["supervisor"], shown["crashes"]) == (second["pid"], second["parent"], 1)
    assert "SIGKILL" in shown["last_crash"]["text"]
    assert "SIGKILL" in install.manage("status").expect().out
    install.manage().expect()
    assert health(install)["pid"] == second["pid"], "a pass finds nothing to mend"
    assert (len(alive(install)), creates(install)) == (1, 1)


def test_a_proxy_that_crashes_again_and_again_is_given_up_and_told(install: Install) -> None:
    install.proxy = True
    install.manage().expect()
    warden = proxy(install)["supervisor"]
    for _ in range(MAX_CRASHES):
        pid = eventually(lambda: notes(install)["proxy"], within=SLOW)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda p=pid: notes(install)["proxy"] != p, within=SLOW)  # type: ignore[misc]
    eventually(lambda: process_id(warden) is None, within=SLOW)
    assert not listens(install.port)
    assert "GIVEN UP" in install.manage("status").expect().out
    told = install.manage().expect(70)
    assert "The proxy crashed" in told.out + told.err
    assert "SIGKILL" in told.out + told.err
    assert not listens(install.port), "not tried again at once"
    assert "FAILING" in install.manage("status").expect().out
    events = (install.directory / ".llmpod/pod_state/events.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in events if "given up" in line] == ["failed"]
    install.manage("--shutdown").expect()
    install.manage("up").expect()  # a person's word
    assert health(install)["parent"] != warden


def test_a_proxy_whose_warden_was_killed_gets_another_one(install: Install) -> None:
    install.proxy = True
    install.manage().expect()
    first = health(install)
    os.kill(first["parent"], signal.SIGKILL)
    eventually(lambda: process_id(first["parent"]) is None, within=SLOW)
    assert health(install)["pid"] == first["pid"], "it serves on"
    install.manage().expect()
    second = health(install)
    assert {first["pid"], first["parent"]}.isdisjoint({second["pid"], second["parent"]})
    assert process_id(first["pid"]) is None
    install.manage("--shutdown").expect()
    assert process_id(second["pid"]) is process_id(second["parent"]) is None


# --- the warden alone
def started(tmp_path: Path, code: str) -> list[str]:
    files = [str(tmp_path / NOTES), str(tmp_path / "proxy.log")]
    return [PYTHON, "-I", "-S", proxy_warden.__file__, *files, PYTHON, "-I", "-S", "-c", code]


def noted(tmp_path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((tmp_path / NOTES).read_text())
    return document


@pytest.mark.parametrize("code", [78, 98, 0])
def test_a_proxy_that_cannot_start_or_is_done_is_not_tried_again(
    tmp_path: Path, env: dict[str, str], code: int
) -> None:
    with running(
        started(tmp_path, f"import sys; print('once', flush=True); sys.exit({code})"), env=env
    ) as warden:
        assert warden.wait(within=SLOW) == code
        assert warden.out.count("once") == 1
    assert (noted(tmp_path)["crashes"], noted(tmp_path)["gave_up"]) == (0, False)


@pytest.mark.parametrize("code", [1, 70])
def test_one_that_always_crashes_is_given_up(tmp_path: Path, env: dict[str, str], code: int) -> None:
    """70: its own watchdog ended it, for its loop hung."""
    began = time.time()
    with running(
        started(tmp_path, f"import sys; print('again', flush=True); sys.exit({code})"), env=env
    ) as warden:
        assert warden.wait(within=SLOW) == code
        assert warden.out.count("again") == MAX_CRASHES
    seen = noted(tmp_path)
    assert (seen["gave_up"], seen["crashes"], seen["last_crash"]["code"]) == (True, MAX_CRASHES, code)
    assert began <= seen["last_crash"]["at"] <= time.time()


DEAF = """
import signal
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
print("up", flush=True)
while True: signal.pause()
"""


def test_a_proxy_that_does_not_end_is_killed_in_time(tmp_path: Path, env: dict[str, str]) -> None:
    with running(started(tmp_path, DEAF), env=env) as warden:
        warden.says("up")
        child = noted(tmp_path)["proxy"]
        warden.signal(signal.SIGTERM)
        warden.says("asked")
        assert warden.wait(within=SLOW) == 256 - signal.SIGKILL
    assert process_id(child) is None
    assert noted(tmp_path)["crashes"] == 0


def test_sighup_and_a_second_signal_reach_the_proxy(tmp_path: Path, env: dict[str, str]) -> None:
    code = """
import signal, sys
asked = 0
def hear(number, _):
    global asked
    print(signal.Signals(number).name, flush=True)
    asked += number == signal.SIGTERM
    if asked == 2: sys.exit(0)
for number in (signal.SIGHUP, signal.SIGTERM): signal.signal(number, hear)
print("up", flush=True)
while True: signal.pause()
"""
    with running(started(tmp_path, code), env=env) as warden:
        warden.says("up")
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGTERM):
            before = warden.out.count(number.name)
            warden.signal(number)
            eventually(lambda b=before, n=number: warden.out.count(n.name) > b, within=SLOW)  # type: ignore[misc]
        assert warden.wait() == 0


def test_a_start_that_the_system_refuses_is_a_crash_like_others(tmp_path: Path, env: dict[str, str]) -> None:
    """Found by a review: it was the warden's own end, without a word to the manager."""
    program = tmp_path / "once"
    program.write_text('#!/bin/sh\nrm "$0"\nexit 1\n')
    program.chmod(0o700)
    with running([*started(tmp_path, "")[:-5], program], env=env) as warden:
        assert warden.wait(within=SLOW) == proxy_warden.NO_PROCESS
    assert (noted(tmp_path)["gave_up"], noted(tmp_path)["crashes"]) == (True, MAX_CRASHES)


def test_sighup_does_not_end_a_proxy_that_does_not_listen_for_it_yet(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with running(started(tmp_path, "import signal; print(signal.getsignal(1).name)"), env=env) as warden:
        assert warden.wait(within=SLOW) == 0
        assert warden.out == "SIG_IGN\n"


def test_the_log_of_a_proxy_that_runs_for_months_is_bounded(tmp_path: Path, env: dict[str, str]) -> None:
    """What is too long is set aside while the proxy goes on writing at its end."""
    log, old = tmp_path / "proxy.log", tmp_path / "proxy.log.1"
    old.write_text("older")
    code = f"""
import os, signal
os.write(1, b"x" * {LOG_BYTES} + b" first\\n")
signal.signal(signal.SIGHUP, lambda *_: os.write(1, b"next\\n"))
os.write(1, b"up\\n")
while True: signal.pause()
"""
    with log.open("ab") as out, subprocess.Popen(started(tmp_path, code), env=env, stdout=out) as warden:
        try:
            eventually(lambda: log.read_bytes().endswith(b"up\n"), within=SLOW)
            warden.send_signal(signal.SIGHUP)  # it looks whenever it hears something, and once a minute
            eventually(lambda: log.stat().st_size < 100, within=SLOW)
            eventually(lambda: b" first\nup\n" in old.read_bytes()[-100:], within=SLOW)
            assert old.stat().st_mode & 0o077 == 0
            warden.send_signal(signal.SIGHUP)
            eventually(lambda: log.read_bytes().endswith(b"next\n"), within=SLOW)
            assert not log.read_bytes().startswith(b"\0"), "it goes on at the new end"
        finally:
            warden.terminate()
            warden.wait(15)


def test_notes_that_cannot_be_written_do_not_keep_the_proxy_from_running(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with running(started(tmp_path / "missing", "print('ran', flush=True)"), env=env) as warden:
        assert warden.wait(within=SLOW) == 0
        assert "ran" in warden.out


def test_five_within_a_minute_are_too_many_and_older_ones_do_not_count() -> None:
    times: Iterator[float] = iter([0.0, 30.0, 59.0, 59.5, 90.5, 91.0, 91.1])
    crashes = Crashes(lambda: next(times))
    assert [crashes.another() for _ in range(6)] == [0.0, 0.1, 0.2, 0.4, 0.2, 0.4]
    assert crashes.another() is None
    assert crashes.total == 7


def test_no_pause_is_longer_than_a_second() -> None:
    crashes = Crashes(lambda: 0.0)
    pauses = [crashes.another() for _ in range(MAX_CRASHES)]
    assert pauses[-1] is None
    assert all(pause is not None and pause <= 1.0 for pause in pauses[:-1])
