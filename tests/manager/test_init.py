"""`init`, typed by a person in a real terminal, piped, and by flags alone."""

import json
import signal
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llmpod import config
from llmpod.config import jsonc
from tests.support.forks import Forks
from tests.support.process import PYTHON, Finished
from tests.support.screen import Screen, terminal
from tests.support.source import ROOT


def argv(path: Path, *arguments: str) -> list[str]:
    return [PYTHON, str(ROOT / "manage_pod.py"), "--config", str(path), "init", *arguments]


Init = Callable[..., Finished]


@pytest.fixture
def init(forks: Forks, env: dict[str, str]) -> Init:
    def made(path: Path, *arguments: str, stdin: str = "", **more: str) -> Finished:
        return forks.run(argv(path, *arguments), env={**env, **more}, stdin=stdin)

    return made


def written(path: Path) -> dict[str, Any]:
    """What stands there, which must be valid."""
    config.load(path, {})
    return jsonc.parse(path.read_text(encoding="utf-8"), where=str(path))


DEFAULTS = {
    "model": "Qwen/Qwen2.5-Coder-7B-Instruct",
    "gpu_type_id": "auto",
    "runtime_seconds": 3600,
    "budget": {"per_day_usd": 10.0},
    "proxy_port": 8000,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pod_config.json"


def test_defaults_make_a_valid_commented_private_file(path: Path, init: Init) -> None:
    told = init(path, "--yes").expect().out
    assert written(path) == DEFAULTS
    text = path.read_text()
    assert all("\n\n  //" in text or key == "model" for key in DEFAULTS)
    assert text.count("  //") == len(DEFAULTS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [line.split("#")[0].split()[-1] for line in told.splitlines() if "python3" in line] == [
        "plan",
        "up",
    ]
    assert f"--config {path}" in told
    assert "RUNPOD_API_KEY" in told
    assert [left.name for left in path.parent.iterdir()] == [path.name]


def test_with_a_key_nothing_is_said_of_one(path: Path, init: Init) -> None:
    told = init(path, "--yes", RUNPOD_API_KEY="rpa_1234567890").expect()
    assert "RUNPOD_API_KEY" not in told.out
    assert "rpa_1234567890" not in told.out + path.read_text()


def test_flags_answer_and_short_names_are_enough(path: Path, init: Init) -> None:
    flags = [
        "--model",
        "org/x@main",
        "--gpu",
        "L4, nvidia rtx a6000,L4",
        "--runtime",
        "1h30m",
        "--budget",
        "$7.50",
    ]
    init(path, *flags, "--port", "8123").expect()
    assert written(path) == {
        "model": "org/x@main",
        "gpu_type_id": ["NVIDIA L4", "NVIDIA RTX A6000"],
        "runtime_seconds": 5400,
        "budget": {"per_day_usd": 7.5},
        "proxy_port": 8123,
    }
    assert "http://localhost:8123/v1" in path.read_text()


@pytest.mark.parametrize(
    ("flag", "bad", "said"),
    [
        ("--model", "no such thing", "Hugging Face id"),
        ("--gpu", "RTX 9999", "no GPU type"),
        ("--gpu", "L40 S", "NVIDIA L40S"),
        ("--gpu", ",", "at least one"),
        ("--runtime", "soon", "length of time"),
        ("--runtime", "5s", "greater than or equal to 60"),
        ("--runtime", "1h30", "length of time"),
        ("--budget", "-3", "amount"),
        ("--budget", "0", "greater than 0"),
        ("--port", "70000", "65535"),
        ("--port", "http", "port"),
    ],
)
def test_a_bad_flag_is_told_at_once_and_nothing_is_written(
    path: Path, init: Init, flag: str, bad: str, said: str
) -> None:
    told = init(path, "--yes", f"{flag}={bad}").expect(78)
    assert f"{flag}: " in told.err
    assert said in told.err
    assert "Traceback" not in told.err
    assert not path.exists()


def test_piped_answers_are_asked_again_only_where_they_are_bad(path: Path, init: Init) -> None:
    told = init(path, stdin="bad id!\norg/x\n\n2h\nlots\nnone\n8001\n").expect()
    expected = {"model": "org/x", "gpu_type_id": "auto", "runtime_seconds": 7200, "proxy_port": 8001}
    assert written(path) == expected
    assert told.out.count("Which model?") == 2
    assert told.out.count("dollars a day at most") == 2


def test_answers_that_end_too_early_are_not_lost(path: Path, init: Init) -> None:
    told = init(path, "--port", "8001", stdin="org/x\nL4,A40\n").expect(1)
    assert "nothing was written" in told.err
    assert "init --port 8001 --model org/x --gpu 'NVIDIA L4,NVIDIA A40'" in told.err
    assert not path.exists()
    flags = ["--port", "8001", "--model", "org/x", "--gpu", "NVIDIA L4,NVIDIA A40"]
    init(path, *flags, stdin="\n\n").expect()
    assert written(path)["gpu_type_id"] == ["NVIDIA L4", "NVIDIA A40"]


def test_an_existing_file_is_replaced_after_a_yes_only_and_kept(path: Path, init: Init) -> None:
    old = '{"model": "org/old"} // mine\n'
    path.write_text(old)
    for arguments, stdin in ((["--yes"], ""), ([], "n\n"), ([], "\n"), ([], "")):
        told = init(path, *arguments, stdin=stdin).expect(1)
        assert "exists" in told.out + told.err
        assert path.read_text() == old
    init(path, stdin="y\norg/new\n\n\n\n\n").expect()
    assert written(path)["model"] == "org/new"
    assert (path.parent / "pod_config.json.bak").read_text() == old
    init(path, "--yes", "--force").expect()
    assert written(path) == DEFAULTS


def test_a_link_stays_a_link(path: Path, tmp_path: Path, init: Init) -> None:
    real = tmp_path / "dotfiles" / "pod.json"
    path.symlink_to(real)
    init(path, "--yes").expect()
    assert path.is_symlink()
    assert written(real) == DEFAULTS


def test_the_schema_is_named_where_it_stands_beside(path: Path, init: Init) -> None:
    (path.parent / "pod_config.schema.json").write_text("{}")
    init(path, "--yes").expect()
    assert written(path)["$schema"] == "./pod_config.schema.json"


def test_a_folder_that_takes_no_file_is_told(tmp_path: Path, init: Init) -> None:
    (tmp_path / "file").write_text("")
    assert "Traceback" not in init(tmp_path / "file" / "x.json", "--yes").expect(78).err


# --- a person at a terminal
def test_at_a_terminal(path: Path, env: dict[str, str]) -> None:
    with terminal(argv(path), env) as screen:
        screen.until("Which model?")
        screen.type("org/x\n")
        screen.until("On which GPU?")
        screen.type("H9000\n")
        screen.until("no GPU type")
        screen.until("On which GPU?")
        screen.type("auto\n")
        screen.until("How long")
        screen.type("\n")
        screen.until("dollars")
        screen.type("none\n")
        screen.until("port")
        screen.type("8099\n")
        screen.until("Wrote")
        assert screen.program.wait(20) == 0
    assert json.dumps(written(path)["model"]) == '"org/x"'
    assert "budget" not in written(path)


def _press(screen: Screen, key: str) -> None:
    """Ctrl-C as its signal, since this terminal controls nobody; again, should it fall between prompt and read(2)."""
    if key != "\x03":
        screen.type(key)
        return
    for _ in range(4):
        screen.program.send_signal(signal.SIGINT)
        with suppress(AssertionError):
            screen.until("nothing was written", within=4)
            return


@pytest.mark.parametrize("key", ["\x03", "\x04"])
def test_ctrl_c_and_ctrl_d_write_nothing(path: Path, env: dict[str, str], key: str) -> None:
    with terminal(argv(path), env) as screen:
        screen.until("Which model?")
        screen.type("org/x\n")
        screen.until("On which GPU?")
        _press(screen, key)
        screen.until("nothing was written")
        screen.until("--model org/x")
        assert screen.program.wait(20) == 1
    assert not path.exists()
