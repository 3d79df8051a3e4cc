"""Of several models, one is chosen by name or alias: `logs`, `connect`; what names no model names them all."""

import json
import sys
from functools import partial

import pytest

from tests.support.desk import Desk
from tests.support.source import ROOT
from tests.support.wait import eventually


@pytest.fixture
def desk(desk: Desk) -> Desk:
    write(desk)
    return desk


def write(desk: Desk) -> None:
    models: dict[str, dict[str, object]] = {
        name: {"model": f"org/{name}", "process": says(name)} for name in ("chat", "code")
    }
    models["code"] |= {"aliases": ["coder"], "max_model_len": 4321}
    document = {"backend": "process", "models": models, "proxy_port": desk.port, "cache_dir": "cache"}
    (desk.directory / "pod_config.json").write_text(json.dumps(document))


def says(name: str) -> dict[str, object]:
    words = [sys.executable, "-c", f"import time; print('I am {name}', flush=True); time.sleep(600)"]
    return {"command": words, "cwd": str(ROOT)}


def test_the_log_of_one_model(desk: Desk) -> None:
    desk.manage("--no-proxy").expect()

    def said(asked: str, name: str) -> str:
        done = desk.manage("logs", asked)
        return done.out if done.code == 0 and f"I am {name}" in done.out else ""

    for asked, name, other in (("chat", "chat", "code"), ("code", "code", "chat"), ("coder", "code", "chat")):
        text = eventually(partial(said, asked, name), within=20)
        assert f"I am {other}" not in text
    refused = desk.manage("logs", "chatt").expect(2)
    assert "Did you mean chat?" in refused.err


def test_all_models_are_named_and_one_can_be_taken(desk: Desk) -> None:
    assert "one of the models org/chat, org/code" in desk.manage("connect").expect().out
    told = desk.manage("connect", "aider", "--model", "coder").expect()
    assert "openai/org/code" in told.out
    assert "4321" in told.out
    assert "org/chat" in told.err
    assert "is valid: org/chat, org/code" in desk.manage("doctor").out
