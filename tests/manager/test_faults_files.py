"""State files of other versions (F44) and a configuration that cannot be read (F45)."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.manager.passes import alive, creates, edit, until
from tests.support.install import Install
from tests.support.process import Finished
from tests.sweep.managers import no_strace

# Written by commit 6d047ec, the last one of schema 1, in one run against the simulator. Each schema adds its file.
PAST = {1: Path(__file__).parent / "data" / "pod_state.schema1.json"}


def as_it_was_written_by(install: Install, schema: int) -> str:
    """The present pod in a state file of that schema; the file's text."""
    path = install.directory / "pod_state.json"
    document: dict[str, Any] = json.loads(PAST[schema].read_text(encoding="utf-8"))
    now, then = install.state(), document["models"]["default"]
    document["install_id"] = install.install_id
    kept = ("name", "instance_id", "base_url", "intent_at", "created_at", "ready_at", "deadline", "run_at")
    document["models"]["default"] = {**then, **{name: now[name] for name in kept}}
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")
    return path.read_text(encoding="utf-8")


# --- F38, F39
REFUSING = {
    "no room": ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"],
    "EIO on fsync": ["strace", "-f", "-o", "/dev/null", "-e", "inject=fsync:error=EIO"],
}


@pytest.mark.component
@pytest.mark.parametrize(("how", "again"), [("no room", False), ("EIO on fsync", True)])
def test_a_disk_that_takes_no_state_buys_no_pod(install: Install, how: str, again: bool) -> None:  # noqa: FBT001 - a case
    """Neither the first pod, nor another one in the place of one that is gone."""
    if how != "no room" and (why := no_strace()):
        pytest.skip(why)
    if again:
        until(install, "ready")
        install.manage("down").expect()
        edit(install, phase="stopped")
    before = creates(install)
    argv = [*REFUSING[how], *install.argv(*(["up"] if again else []))]
    # what it says goes through pipes, for which there is always room
    done = subprocess.run(argv, env=install.environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert (creates(install), alive(install)) == (before, [])
    install.manage("up").expect()
    assert creates(install) == before + 1


# --- F44
@pytest.mark.parametrize("schema", sorted(PAST))
def test_an_older_state_is_taken_over_with_its_pod_and_kept_for_a_way_back(
    install: Install, schema: int
) -> None:
    pod = until(install, "ready")["instance_id"]
    before = as_it_was_written_by(install, schema)
    assert install.status()["pod_id"] == pod, "readers need no migration"
    install.manage().expect()
    backup = install.directory / f"pod_state.json.schema{schema}"
    assert json.loads(backup.read_text()) == json.loads(before)
    assert json.loads((install.directory / "pod_state.json").read_text())["schema"] > schema
    assert (install.state()["phase"], alive(install), creates(install)) == ("ready", [pod], 1)
    edit(install, deadline=1.0)
    until(install, "stopped", most=3)
    assert alive(install) == []


def test_every_past_schema_is_tested(install: Install) -> None:
    install.manage().expect()
    present = json.loads((install.directory / "pod_state.json").read_text())["schema"]
    assert sorted(PAST) == list(range(1, present))


@pytest.mark.parametrize("arguments", [(), ("up",), ("--dry-run",), ("status",)])
def test_a_newer_state_is_refused_and_nothing_is_created_or_changed(
    install: Install, arguments: tuple[str, ...]
) -> None:
    pod = until(install, "ready")["instance_id"]
    path = install.directory / "pod_state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    before = path.read_text()
    done = install.manage(*arguments)
    assert "newer" in done.out + done.err
    assert done.code == (0 if arguments == ("status",) else 78)
    assert (path.read_text(), alive(install), creates(install)) == (before, [pod], 1)


# --- F45
WRONG = [
    '{"model": "org/tiny-ch',
    "",
    '{"model": "org/tiny-chat", "gpu_typ_id": ["NVIDIA L4"]}',
    "[]",
    "null",
]


def with_a_wrong_configuration(install: Install, text: str, *arguments: str) -> Finished:
    good = install.path.read_text()
    install.path.write_text(text)
    try:
        return install.manage(*arguments)
    finally:
        install.path.write_text(good)


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_configuration_is_told_and_the_pod_lives_on_with_the_last_good_one(
    install: Install, text: str
) -> None:
    pod = until(install, "ready")["instance_id"]
    before = install.state()["spec_digest"]
    done = with_a_wrong_configuration(install, text).expect(78)
    assert "pod_config.json" in done.out + done.err
    assert "Traceback" not in done.err
    assert (install.state()["phase"], install.state()["spec_digest"]) == ("ready", before)
    install.manage().expect()
    assert (alive(install), creates(install)) == ([pod], 1)


@pytest.mark.parametrize("text", WRONG[:3])
def test_a_deadline_is_carried_out_whatever_the_configuration_says(install: Install, text: str) -> None:
    until(install, "ready")
    edit(install, deadline=1.0)
    with_a_wrong_configuration(install, text).expect(78)
    assert alive(install) == []


def test_a_wrong_configuration_keeps_the_proxy_as_it_is(install: Install) -> None:
    install.proxy = True
    until(install, "ready")
    first = json.loads((install.directory / "pod_state.json").read_text())["proxy"]["process"]
    with_a_wrong_configuration(install, WRONG[0]).expect(78)
    assert json.loads((install.directory / "pod_state.json").read_text())["proxy"]["process"] == first
    install.manage().expect()
    assert json.loads((install.directory / "pod_state.json").read_text())["proxy"]["process"] == first


@pytest.mark.parametrize("text", WRONG)
def test_without_a_last_good_configuration_a_wrong_one_starts_nothing(install: Install, text: str) -> None:
    with_a_wrong_configuration(install, text).expect(78)
    with_a_wrong_configuration(install, text, "up").expect(78)
    assert (alive(install), creates(install)) == ([], 0)
