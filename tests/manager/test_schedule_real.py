"""The real programs: Debian's `crontab` and `cron` with a fast clock, and a real `systemd --user`.

All run as root in a mount namespace of their own, so that neither root's crontab nor the machine's jobs are touched.
A user's systemd is started in a cgroup of its own only: started in the root cgroup it would move every process of
the machine into its scope.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.manager.account import MANAGER, Account, Diagnosis, account
from tests.support.install import Install
from tests.support.process import PYTHON, Finished, Running, run, running
from tests.support.procfs import Process, descendants, read
from tests.support.wait import eventually

pytestmark = pytest.mark.component
CGROUPS = [Path("/sys/fs/cgroup") / name for name in ("systemd", "unified")]
SYSTEMD = Path("/lib/systemd/systemd")
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


def needs(*programs: str) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not here (Debian: apt install {' '.join(missing)})")
    if (
        os.geteuid() != 0
        or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("only root can make a mount namespace")


@pytest.fixture
def ann(install: Install, tmp_path: Path) -> Account:
    """A user whose crontab and systemctl are the machine's own."""
    found = account(install, tmp_path / "ann's 100% home")
    for name in ("crontab", "systemctl", "table"):
        (found.bin / name).unlink()
    return found


# --- cron
@dataclass
class Spool:
    """cron's own directory, seen only in a namespace that mounts ours over it."""

    ann: Account
    tabs: Path

    def inside(self, command: str) -> Finished:
        script = (
            f'mount --make-rprivate / && mount --bind "{self.tabs}" /var/spool/cron/crontabs && {command}'
        )
        return run(["unshare", "-m", "sh", "-c", script], env=self.ann.environ, within=90)

    def manage(self, *words: str) -> Finished:
        path = self.ann.install.path
        return self.inside(f'"{PYTHON}" "{MANAGER}" --config "{path}" {" ".join(words)}')


@pytest.fixture
def spool(ann: Account, tmp_path: Path) -> Spool:
    needs("crontab", "unshare")
    tabs = tmp_path / "tabs"
    tabs.mkdir(mode=0o1730)
    return Spool(ann, tabs)


def test_the_real_crontab_takes_the_lines_and_gives_them_back(spool: Spool) -> None:
    spool.inside(f"printf '%s' '{FOREIGN}' | crontab -").expect()
    spool.manage("schedule", "install", "cron", "--shutdown-at", "00:00").expect()
    table = spool.inside("crontab -l").expect().out
    assert table.startswith(FOREIGN)
    assert table.count("manage_pod.py --config") == 2
    spool.manage("schedule", "install", "cron", "--shutdown-at", "00:00").expect()
    assert spool.inside("crontab -l").expect().out == table
    spool.manage("schedule", "remove").expect()
    assert spool.inside("crontab -l").expect().out == FOREIGN


FOREIGN = '# mine, 100 %\nMAILTO=""\n1 2 3 4 5 true \\% x\n'


def test_the_real_crontab_of_a_user_who_had_none(spool: Spool) -> None:
    spool.manage("schedule", "install").expect()
    assert "BEGIN llmpod" in spool.inside("crontab -l").expect().out
    spool.manage("schedule", "remove").expect()
    assert "no crontab" in spool.inside("crontab -l").err


def test_the_real_cron_runs_the_lines_as_they_are_written(spool: Spool, tmp_path: Path) -> None:
    """The watchdog every five minutes makes the pod, the midnight line ends it; 23:53 to 00:01 in half a minute."""
    needs("cron", "crontab", "unshare")
    if FAKETIME is None:
        pytest.skip("libfaketime is not here (Debian: apt install faketime)")
    ann = spool.ann
    spool.inside(f"printf 'HOME=%s\\n' \"{ann.home}\" | crontab -").expect()
    spool.manage("schedule", "install", "--shutdown-at", "00:01").expect()
    no_proxy = "crontab -l | sed 's/manage_pod.py /manage_pod.py --no-proxy /' | crontab -"
    spool.inside(no_proxy).expect()
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "crontab").touch(mode=0o644)
    start = tmp_path / "start.sh"
    # the clock of cron alone is fast: its jobs must see the real one, as the simulator does
    start.write_text(
        "mount --make-rprivate /\n"
        f'mount --bind "{spool.tabs}" /var/spool/cron/crontabs\n'
        f'mount --bind "{empty}" /etc/cron.d; mount --bind "{tmp_path / "crontab"}" /etc/crontab\n'
        "mount -t tmpfs tmpfs /run\n"
        f"exec env LD_PRELOAD={FAKETIME} FAKETIME='@2026-11-20 23:58:30 x15' cron -f\n"
    )
    log = ann.home / ".local/state/llmpod"
    with running(["unshare", "-m", "sh", str(start)], env=ann.environ):
        eventually(lambda: "created" in _text(log), within=60)
        assert len(ann.install.sim.alive()) == 1
        eventually(lambda: "no pod of this installation exists" in _text(log), within=60)
        eventually(lambda: not _at_work(ann.install.path), within=20)
    assert ann.install.sim.alive() == []


def _at_work(config: Path) -> list[Path]:
    """Passes of that configuration; one that stayed for what was due sees that all is done."""
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(config) in _command(path)]


def _command(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it ended meanwhile
        return ""


def _text(directory: Path) -> str:
    return "".join(path.read_text() for path in directory.glob("*.log"))


# --- systemd
@dataclass
class UserManager:
    """A running `systemd --user` of this account."""

    ann: Account
    environ: Mapping[str, str]
    program: Running

    def systemctl(self, *words: str) -> Finished:
        return run(["systemctl", "--user", *words], env=self.environ, within=60)

    def manage(self, *words: str) -> Finished:
        argv = [PYTHON, str(MANAGER), "--config", str(self.ann.install.path), *words]
        return self.ann.install.start(argv, env=self.environ, within=90)


@pytest.fixture
def systemd(ann: Account, tmp_path: Path) -> Iterator[UserManager]:
    needs("unshare", "systemctl")
    group = f"llmpod-test-{os.getpid()}"
    if not SYSTEMD.exists() or not all((path / "cgroup.procs").exists() for path in CGROUPS):
        pytest.skip("no systemd, or not the cgroup hierarchies that it would be kept in")
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    groups = [path / group for path in CGROUPS]
    for path in groups:
        path.mkdir()
    script = tmp_path / "user.sh"
    script.write_text(
        "".join(f"echo $$ > {path}/cgroup.procs\n" for path in groups)
        + f"test $(grep -cE '^(0:|[0-9]+:name=systemd):/{group}' /proc/self/cgroup) = 2 || exit 9\n"
        # shared again: the directory of a credential is mounted by a child of the manager
        "mount --make-rprivate / && mount --make-rshared / || exit 9\n"
        "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system || exit 9\n"
        f'exec env -i PATH=/usr/bin:/bin HOME="{ann.home}" XDG_RUNTIME_DIR="{runtime}" {SYSTEMD} --user\n'
    )
    environ = {**ann.environ, "XDG_RUNTIME_DIR": str(runtime)}
    try:
        with running(["unshare", "-m", "bash", str(script)], env=ann.environ) as program:
            manager = UserManager(ann, environ, program)
            eventually(lambda: (runtime / "systemd/private").exists() or program.code is not None, within=20)
            if program.code is not None:
                pytest.skip(f"systemd --user does not start here: {program.err.strip()}")
            yield manager
            _end_all(descendants(program.pid))
    finally:
        for path in groups:
            _remove(path)


def _end_all(processes: list[Process]) -> None:
    for process in processes:
        process.kill()


def _remove(group: Path) -> None:
    """A cgroup goes when its last process has gone."""
    for path in [*sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True), group]:
        eventually(partial(_rmdir, path), within=10)


def _rmdir(path: Path) -> bool:
    with suppress(OSError):
        path.rmdir()
    return not path.exists()


@pytest.fixture
def scheduled(systemd: UserManager) -> Iterator[str]:
    """The name of the installed units. The key lies where only the unit's credential leads."""
    ann = systemd.ann
    elsewhere = ann.home / "the key"
    ann.key_file.rename(elsewhere)
    named = {**systemd.environ, "RUNPOD_API_KEY_FILE": str(elsewhere)}
    said = UserManager(ann, named, systemd.program).manage("schedule", "install", "systemd").expect().out
    assert "systemd now runs a pass every 5 minutes" in said
    yield next(path.stem for path in ann.units.glob("*.service"))
    elsewhere.rename(ann.key_file)
    systemd.manage("--shutdown")


def proxy_of(ann: Account) -> Process | None:
    document = json.loads((ann.install.directory / "pod_state.json").read_text(encoding="utf-8"))
    return read(document["proxy"]["process"]["pid"])


def passed(systemd: UserManager, scheduled: str) -> None:
    """A pass by its unit makes the pod; it would stay to see it ready, so others see to that meanwhile."""
    systemd.systemctl("start", "--no-block", f"{scheduled}.service").expect()
    eventually(systemd.ann.install.sim.alive, within=30)
    systemd.ann.install.passes_until("ready")
    systemd.systemctl("start", f"{scheduled}.service").expect()  # waits for the one that runs


def test_the_units_run_passes_and_the_proxy_outlives_them(systemd: UserManager, scheduled: str) -> None:
    ann = systemd.ann
    assert systemd.systemctl("is-active", f"{scheduled}.timer").expect().out.strip() == "active"
    passed(systemd, scheduled)
    assert len(ann.install.sim.alive()) == 1, "the key came as a credential"
    proxy = proxy_of(ann)
    assert proxy is not None
    systemd.systemctl("start", f"{scheduled}.service").expect()
    systemd.systemctl("stop", f"{scheduled}.timer", f"{scheduled}.service").expect()
    assert proxy_of(ann) == proxy, "neither the end of a pass nor the next one touched it"
    systemd.systemctl("start", f"{scheduled}.timer").expect()
    seen = Diagnosis.of_json(systemd.manage("doctor", "--as-cron", "--json"))
    assert "the timer runs" in [check["found"] for check in seen.all("ok")]
    assert set(seen.wrong) <= {"timer"}
    systemd.manage("schedule", "remove").expect()
    assert not ann.units.exists()
    assert systemd.systemctl("is-active", f"{scheduled}.timer").out.strip() == "inactive"
    assert proxy_of(ann) == proxy


def test_the_stop_of_its_unit_ends_all_and_a_restart_only_the_proxy(systemd: UserManager) -> None:
    ann = systemd.ann
    systemd.manage("schedule", "install", "systemd", "--proxy").expect()
    unit = next(ann.units.glob("*-models.service")).name
    systemd.systemctl("stop", unit.replace("-models.service", ".timer")).expect()  # passes of ours only
    systemd.systemctl("start", unit).expect()  # waits for the start that was ordered already
    (pod,), proxy = ann.install.sim.alive(), proxy_of(ann)
    assert proxy is not None
    systemd.systemctl("restart", unit).expect()
    again = proxy_of(ann)
    assert again is not None
    assert again.pid != proxy.pid
    assert [left["id"] for left in ann.install.sim.alive()] == [pod["id"]]
    systemd.systemctl("stop", unit).expect()
    assert ann.install.sim.alive() == []
    assert (left := read(again.pid)) is None or left.is_zombie
    systemd.systemctl("start", unit).expect()
    assert proxy_of(ann) is not None
    assert ann.install.sim.alive() == [], "what costs money waits for a person"
    systemd.manage("up").expect()
    assert len(ann.install.sim.alive()) == 1
    systemd.manage("schedule", "remove").expect()
    assert systemd.systemctl("is-active", unit).out.strip() == "inactive"
    assert len(ann.install.sim.alive()) == 1, "to be removed is no stop"
    systemd.manage("--shutdown").expect()


def test_with_the_usual_kill_mode_it_would_not(systemd: UserManager, scheduled: str) -> None:
    """The negative control: what the unit's KillMode is for."""
    path = systemd.ann.units / f"{scheduled}.service"
    path.write_text(path.read_text().replace("KillMode=process", "KillMode=control-group"))
    systemd.systemctl("daemon-reload").expect()
    passed(systemd, scheduled)
    eventually(lambda: (proxy := proxy_of(systemd.ann)) is None or proxy.is_zombie, within=20)
