"""Managers and proxies that die, linger or lend their numbers to strangers (F31 to F33, F46, F53)."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.manager.passes import alive, creates, until
from tests.manager.test_proxy_process import QUESTION, answered, proxy_pid
from tests.support import procfs
from tests.support.forks import Forks
from tests.support.install import Install
from tests.support.process import PYTHON, Finished, run
from tests.support.wait import eventually


def unshared(*flags: str) -> Sequence[str]:
    """The words that start a command in namespaces of its own; the test is skipped, with the reason, where not."""
    words = ["unshare", *flags]
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed (util-linux)")
    tried = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    return words


# --- F32: a lock that a dead process left
def test_the_lock_of_a_manager_that_was_killed_blocks_nobody(install: Install, forks: Forks) -> None:
    install.sim.fault("list", "hang")
    with forks.running(install.argv(), env=install.environ) as hanging:
        eventually(install.sim.requests)
        busy = install.manage().expect()
        assert f"Another pass is at work (pid {hanging.pid})" in busy.out
        hanging.signal(signal.SIGKILL)
        hanging.wait()
    lock = install.directory / ".llmpod" / "pod_state" / "lock"
    assert lock.read_text().strip() == str(hanging.pid)
    until(install, "ready")
    assert creates(install) == 1


def test_what_a_killed_writer_left_half_written_is_removed_and_nothing_else(install: Install) -> None:
    install.manage("down").expect()
    kept, dead, alive_pid = (
        install.directory / ".llmpod/pod_state",
        2**22 + 1,
        os.getpid(),
    )  # no pid is that large
    gone = [install.directory / f".pod_state.json.{dead}.0123abcd", kept / f".orders.json.{dead}.0123abcd"]
    others = [
        install.directory / f".mine.txt.{dead}.0123abcd",
        install.directory / f".pod_state.json.{alive_pid}.0123abcd",
        kept / f".orders.json.{alive_pid}.0123abcd",
    ]
    for path in (*gone, *others):
        path.write_text("{")
    install.manage().expect()
    assert [path.exists() for path in (*gone, *others)] == [False] * 2 + [True] * 3


@pytest.mark.parametrize("content", ["1\n", "{pid}\n", "", "garbage", "999999999\n"])
def test_what_stands_in_the_lock_file_means_nothing(install: Install, content: str) -> None:
    """The number of a living process, of init, of nobody: only the kernel's lock counts."""
    install.manage("status").expect()
    lock = install.directory / ".llmpod" / "pod_state" / "lock"
    lock.write_text(content.format(pid=os.getpid()))
    install.manage().expect()
    assert len(alive(install)) == 1


def kill_proxy(install: Install) -> None:
    """The warden first, which would start another one."""
    shown = json.loads(install.manage("status", "--json").expect().out)["proxy"]
    for pid in (shown["supervisor"], shown["pid"]):
        os.kill(pid, signal.SIGKILL)
        eventually(lambda p=pid: procfs.read(p) is None)  # type: ignore[misc]


# --- F33: the number of our dead proxy belongs to somebody else
def as_if_it_were_the_proxy(install: Install, pid: int, *, boot: str | None = None) -> None:
    """The state file names this process, with the start time and boot of the proxy that it once recorded."""
    path = install.directory / "pod_state.json"
    document = json.loads(path.read_text())
    document["proxy"]["process"]["pid"] = pid
    if boot is not None:
        found = procfs.read(pid)
        assert found is not None
        document["proxy"]["process"] |= {"started": found.started, "boot": boot}
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("boot", [None, "11111111-2222-3333-4444-555555555555"])
@pytest.mark.parametrize("ending", ["--shutdown", None])
def test_a_stranger_with_the_recorded_pid_is_never_signalled(
    install: Install, boot: str | None, ending: str | None
) -> None:
    """Started at another time, or at the same time after another boot."""
    install.proxy = True
    install.manage().expect()
    kill_proxy(install)
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            as_if_it_were_the_proxy(install, stranger.pid, boot=boot)
            install.manage(*([ending] if ending else [])).expect()
            assert stranger.poll() is None
            assert proxy_pid(install) != stranger.pid
        finally:
            stranger.kill()


@pytest.mark.component
def test_a_stranger_that_really_got_the_pid_is_never_signalled(install: Install) -> None:
    """In a pid namespace, where the next pid can be chosen."""
    install.proxy = True
    words = unshared("--pid", "--fork", "--mount-proc", "--kill-child")
    if not os.access("/proc/sys/kernel/ns_last_pid", os.W_OK):
        pytest.skip("the next pid cannot be chosen here (ns_last_pid)")
    helper = [PYTHON, "-m", "tests.manager.reused_pid"]
    done = run([*words, *helper, *install.argv()], env=install.environ, within=60).expect()
    became = json.loads(done.out)
    assert became["seen"] is None, "a stranger was taken for the proxy"
    assert became["second"] not in (None, became["pid"])
    assert became["stranger"] is None, "the stranger was ended"
    install.manage("--shutdown").expect()


# --- F46: the port is taken
def test_a_taken_port_is_told_with_its_owner_and_costs_nothing(install: Install) -> None:
    install.proxy = True
    with socket.create_server(("127.0.0.1", install.port)):
        done = install.manage().expect(98)
    assert f"Port {install.port} is in use" in done.out
    assert f"pid {os.getpid()}" in done.out
    assert (creates(install), alive(install)) == (0, [])


# --- F53: a reboot
def after_a_reboot(install: Install, *arguments: str, boot: Path) -> Finished:
    """A call of manage_pod.py on a machine whose boot has another name, for real."""
    script = f'mount --bind "{boot}" /proc/sys/kernel/random/boot_id && exec "$@"'
    words = [*unshared("--mount"), "sh", "-c", script, "sh"]
    return run([*words, *install.argv(*arguments)], env=install.environ)


@pytest.mark.component
def test_after_a_reboot_the_pod_is_kept_and_the_proxy_started_again(install: Install, tmp_path: Path) -> None:
    install.proxy = True
    pod = until(install, "ready")["instance_id"]
    kill_proxy(install)  # nothing survives a reboot
    boot = tmp_path / "boot_id"
    boot.write_text("11111111-2222-3333-4444-555555555555\n")
    after_a_reboot(install, boot=boot).expect()
    document = json.loads((install.directory / "pod_state.json").read_text())
    assert document["proxy"]["process"]["boot"] == boot.read_text().strip()
    assert (install.state()["phase"], alive(install), creates(install)) == ("ready", [pod], 1)
    assert answered(install, QUESTION).headers["X-Cache"] == "MISS"
    after_a_reboot(install, "--shutdown", boot=boot).expect()
    assert alive(install) == []


def test_after_a_reboot_in_the_middle_of_a_start_there_is_one_pod(install: Install, forks: Forks) -> None:
    """The machine goes down while the create call is being answered; the intent on disk is all that is left."""
    install.sim.fault("create", "created_then_hang")
    with forks.running(install.argv(), env=install.environ) as starting:
        eventually(lambda: creates(install) or alive(install))
        starting.signal(signal.SIGKILL)
        starting.wait()
    assert install.state()["phase"] == "intent"
    until(install, "ready")
    assert (len(alive(install)), creates(install)) == (1, 1)
