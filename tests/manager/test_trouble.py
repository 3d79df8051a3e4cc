"""A pass that fails is remembered for who looks later, told once where only a person can mend it, and forgotten."""

import json
from typing import Any

import pytest

from tests.support.install import Install


def document(install: Install) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(install.manage("status", "--json").expect().out)
    return found


def told(install: Install) -> list[str]:
    path = install.directory / ".llmpod/pod_state/events.jsonl"
    events = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [event["text"] for event in events if event["kind"] == "failed"]


@pytest.mark.parametrize(
    ("answer", "code", "heard"), [("401", "bad_credentials", 1), ("500", "provider_unavailable", 0)]
)
def test_a_failing_pass_shows_until_one_succeeds(
    install: Install, answer: str, code: str, heard: int
) -> None:
    install.passes_until("ready")
    assert document(install)["trouble"] is None
    for _ in range(2):
        install.sim.fault("list", answer, times=2)
        assert install.manage().code != 0
    assert document(install)["trouble"]["code"] == code
    assert "FAILING" in install.manage("status").expect().out
    assert len(told(install)) == heard
    while install.manage().code != 0:
        continue
    assert document(install)["trouble"] is None
    assert "FAILING" not in install.manage("status").expect().out
