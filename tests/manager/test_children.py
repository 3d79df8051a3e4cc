"""What the programs that the manager starts get to see of its environment: no key (T8)."""

from pathlib import Path

import pytest

from tests.manager.account import CRONTAB, account
from tests.support.canaries import Canaries
from tests.support.install import Install


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("crontab", ("schedule", "install", "cron")),
        ("systemctl", ("schedule", "install", "systemd")),
        ("openssl", ("tls", "init")),
    ],
)
def test_a_program_sees_no_key(
    install: Install, tmp_path: Path, program: str, words: tuple[str, ...]
) -> None:
    ann, seen, planted = account(install, tmp_path / "ann"), tmp_path / "seen", Canaries.fresh()
    body = CRONTAB.partition("\n")[2] if program == "crontab" else "exit 1"
    ann.program(program, f"#!/bin/sh\n/usr/bin/env >> '{seen}'\n{body}")
    ann.manage(*words, more=planted.values)
    told = seen.read_text()
    assert "LC_ALL=C" in told
    assert planted.seen_in(told) == set()
    assert not any(name in told for name in planted.values)
