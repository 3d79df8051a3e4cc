"""`doctor` names the program that a model's start needs and this machine, or cron's PATH, has not."""

import json
from pathlib import Path

from tests.manager.account import account
from tests.support.desk import Desk
from tests.support.install import Install


def starts(text: str) -> list[tuple[str, str]]:
    return [(c["status"], c["found"]) for c in json.loads(text)["checks"] if c["name"] == "start"]


def test_of_each_model_the_program_is_looked_for(desk: Desk) -> None:
    commands = {"good": ["python3", "-m", "x"], "bad": ["no-such-vllm", "serve", "x"]}
    models = {name: {"model": f"org/{name}", "process": {"command": c}} for name, c in commands.items()}
    document = {"backend": "process", "models": models, "proxy_port": desk.port, "cache_dir": "cache"}
    (desk.directory / "pod_config.json").write_text(json.dumps(document))
    (good, first), (bad, second) = starts(desk.manage("doctor", "--json").expect(1).out)
    assert (good, bad) == ("ok", "problem")
    assert first.startswith("good (org/good)")
    assert second.startswith("bad (org/bad) cannot be started")
    assert "no program 'no-such-vllm' in PATH" in second


def test_slurm_without_its_commands(desk: Desk) -> None:
    section = {"command": ["vllm"], "loopback_user": "me", "loopback_host": "head"}
    desk.env = {**desk.env, "PATH": str(desk.directory)}
    desk.configure("slurm", section)
    ((status, found),) = starts(desk.manage("doctor", "--json").expect(1).out)
    assert status == "problem"
    assert "sbatch, squeue, scancel" in found
    desk.write(["/bin/true"])


def test_what_this_terminal_finds_and_cron_does_not(install: Install, tmp_path: Path) -> None:
    ann = account(install, tmp_path / "home")
    bin_ = tmp_path / "venv-bin"
    bin_.mkdir()
    program = bin_ / "only-here"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    here = {"PATH": f"{bin_}:{ann.environ['PATH']}"}
    ann.install.write(backend="process", process={"command": ["only-here"]})
    assert ann.doctor(more=here).of("start")["status"] == "ok"
    assert ann.doctor("--as-cron", more=here).of("start")["status"] == "problem"
