"""What is written for systemd, and that systemd takes it."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from llmpod.lifecycle import schedule
from tests.lifecycle.jobs import ID, job


def test_units_say_what_they_must() -> None:
    made = schedule.units(job(key_file=Path("/home/ann/100% key")))
    assert set(made) == {f"llmpod-{ID}.service", f"llmpod-{ID}.timer"}
    service, timer = made[f"llmpod-{ID}.service"], made[f"llmpod-{ID}.timer"]
    for setting in ("Type=oneshot", "TimeoutStartSec=295", "KillMode=process", "NoNewPrivileges=yes"):
        assert f"\n{setting}\n" in service
    assert "\nLoadCredential=runpod_api_key:/home/ann/100%% key\n" in service
    assert "--log-file" not in service
    for setting in ("OnCalendar=*:0/5", "Persistent=yes", "AccuracySec=1s", "WantedBy=timers.target"):
        assert f"\n{setting}\n" in timer
    assert '"pass" "--for" "270"\n' in service
    assert schedule.STAY_SECONDS < schedule.PASS_SECONDS < schedule.EVERY_MINUTES * 60


def test_a_nightly_shutdown_has_units_of_its_own() -> None:
    made = schedule.units(job(shutdown_at=(0, 30)))
    assert len(made) == 4
    assert "OnCalendar=*-*-* 00:30:00" in made[f"llmpod-{ID}-shutdown.timer"]
    assert '"--shutdown"' in made[f"llmpod-{ID}-shutdown.service"]


def test_the_unit_of_proxy_and_models_orders_them_down_when_it_stops() -> None:
    assert schedule.models_unit(ID) not in schedule.units(job())
    made = schedule.units(job(with_models=True, key_file=Path("/home/ann/key")))
    assert set(made) == {f"llmpod-{ID}.service", f"llmpod-{ID}.timer", f"llmpod-{ID}-models.service"}
    unit = made[f"llmpod-{ID}-models.service"]
    for setting in (
        *("Type=oneshot", "RemainAfterExit=yes", "KillMode=process", "NoNewPrivileges=yes", "UMask=0077"),
        *(
            "Restart=on-failure",
            "TimeoutStopSec=360",
            "SuccessExitStatus=69 75 76 77 78",
            "WantedBy=default.target",
        ),
        "LoadCredential=runpod_api_key:/home/ann/key",
    ):
        assert f"\n{setting}\n" in unit
    stop = next(line for line in unit.splitlines() if line.startswith("ExecStop="))
    assert stop.endswith('"service" "stop"')
    assert "PrivateTmp" not in unit, "the cache is there for all"


@pytest.mark.component
@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here (apt: systemd)"
)
def test_units_pass_systemd_analyze_verify(tmp_path: Path) -> None:
    """With real files behind every path, in a place whose name needs every kind of quoting."""
    home = tmp_path / '50% off\'s "best" $HOME'
    home.mkdir()
    for name in ("python", "manage_pod.py", "pod_config.json", "key"):
        (home / name).touch(mode=0o755)
    (tmp_path / "python").touch(mode=0o755)
    made = schedule.units(
        job(
            python=tmp_path / "python",
            script=home / "manage_pod.py",
            config=home / "pod_config.json",
            key_file=home / "key",
            shutdown_at=(0, 0),
            with_models=True,
        )
    )
    paths = [tmp_path / name for name in made]
    for path in paths:
        path.write_text(made[path.name])
    done = _verified(tmp_path, paths)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "llmpod" in line]) == (0, [])
    paths[0].write_text(made[paths[0].name].replace("Type=oneshot", "Typ=oneshot"))
    assert "Typ" in _verified(tmp_path, paths[:1]).stderr, "the check itself can fail"


def _verified(home: Path, paths: list[Path]) -> "subprocess.CompletedProcess[str]":
    """What a user's systemd would say of these units."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    argv = ["systemd-analyze", "--user", "verify", *map(str, paths)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)


def test_a_command_line_is_quoted_as_systemd_reads_it() -> None:
    service = schedule.units(job(config=Path('/a $x "y" 5%/c')))[f"llmpod-{ID}.service"]
    line = next(line for line in service.splitlines() if line.startswith("ExecStart="))
    assert '"--config" "/a $$x \\"y\\" 5%%/c" "pass"' in line
    assert shlex.split(line.partition("=")[2])[0] == "/opt/llm pod/.venv/bin/python"
