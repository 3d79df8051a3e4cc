"""The ledger under real crashes and real full disks: what was acknowledged is never lost, the rest never harms."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmpod.lifecycle.ledger import Ledger
from tests.lifecycle.entries import NOON, machine, mine
from tests.support.process import PYTHON, Running, run, running
from tests.support.source import ROOT
from tests.support.wait import eventually

WRITER = """
import sys
from pathlib import Path
from llmpod.lifecycle.ledger import Ledger
from tests.lifecycle.entries import NOON, machine, mine

ledger, number = Ledger(Path(sys.argv[1])), int(sys.argv[2])
while True:
    number += 1
    book = ledger.note(machine(f"p{number}", name="n" * 3000), lambda _: mine(), now=NOON)
    assert book.error is None
    print(number, flush=True)
"""


def _until_lines(writer: Running, count: int) -> None:
    eventually(lambda: writer.out.count("\n") >= count or writer.code is not None, within=20)


def test_killed_while_appending(state_dir: Path) -> None:
    """SIGKILL at random moments, twelve times into the same file: each acknowledged machine is there."""
    ledger, acknowledged, chance = Ledger(state_dir / "ledger.jsonl"), set[str](), random.Random(7)
    for round_ in range(12):
        with running(
            [PYTHON, "-W", "error", "-c", WRITER, ledger.path, str(round_ * 1000)], cwd=ROOT
        ) as writer:
            _until_lines(writer, chance.randint(1, 12))
            writer.signal(signal.SIGKILL)
            assert writer.wait() == -signal.SIGKILL, writer.err
            acknowledged |= {f"p{number}" for number in writer.out.split()}
        book = ledger.read()
        assert acknowledged <= set(book.machines)
        assert len(book.machines) <= len(acknowledged) + round_ + 1, (
            "at most one more, written and not yet said"
        )
    seen = [machine("last")]
    assert ledger.sync(seen, lambda _: mine(), now=NOON).error is None
    assert [e.pod for e in ledger.read().open] == ["last"]


LIMITED = """
import resource, sys
from pathlib import Path
from llmpod.lifecycle.ledger import Ledger
from tests.lifecycle.entries import NOON, machine, mine

ledger = Ledger(Path(sys.argv[1]))
whose = lambda _: mine()
assert ledger.sync([machine("p1")], whose, now=NOON).error is None
whole = ledger.path.read_bytes()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for room in (0, 1, 50):
    resource.setrlimit(resource.RLIMIT_FSIZE, (ledger.path.stat().st_size + room, hard))
    book = ledger.sync([machine("p1"), machine("p2")], whose, now=NOON)
    assert "Cannot write the ledger" in str(book.error), book.error
    assert len(book.open) == 2, "the pass still has its figures"
    assert [e.pod for e in ledger.read().open] == ["p1"]
    assert ledger.path.read_bytes().startswith(whole)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert ledger.sync([machine("p1"), machine("p2")], whose, now=NOON).error is None
assert [e.pod for e in ledger.read().open] == ["p1", "p2"]
"""


def test_a_limit_on_file_sizes(state_dir: Path) -> None:
    """Works everywhere: the kernel takes a part of the line and refuses the rest, as a full disk would."""
    run([PYTHON, "-W", "error", "-c", LIMITED, state_dir / "ledger.jsonl"], cwd=ROOT).expect()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "llmpod-test", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.component
def test_a_full_disk(small_disk: Path) -> None:
    ledger = Ledger(small_disk / "ledger.jsonl")
    assert ledger.sync([machine("p1")], lambda _: mine(), now=NOON).error is None
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while file.tell() < 2**20:
            try:
                file.write(bytes(512))
            except OSError:
                break
    fat = machine("p2", name="n" * 9000)
    book = ledger.sync([machine("p1"), fat], lambda _: mine(), now=NOON)
    assert "No space left" in str(book.error)
    assert len(book.open) == 2
    os.truncate(ballast, 0)
    healed = ledger.sync([machine("p1"), fat], lambda _: mine(), now=NOON)
    assert healed.error is None
    assert len(ledger.read().open) == 2


STRACE = ["strace", "-f", "-qq", "-e", "trace=fsync,write,openat"]


@pytest.mark.component
def test_one_write_and_one_fsync_when_there_is_news_and_none_when_there_is_not(state_dir: Path) -> None:
    path = state_dir / "ledger.jsonl"
    code = (
        "import sys; from pathlib import Path; from llmpod.lifecycle.ledger import Ledger;"
        "from tests.lifecycle.entries import NOON, machine, mine;"
        "Ledger(Path(sys.argv[1])).sync([machine(p) for p in sys.argv[2:]], lambda _: mine(), now=NOON)"
    )

    def calls(*pods: str) -> list[str]:
        try:
            done = run([*STRACE, sys.executable, "-c", code, path, *pods], cwd=ROOT, within=60)
        except FileNotFoundError:
            pytest.skip("strace is not there")
        if "ptrace" in done.err or done.code:
            pytest.skip(f"strace may not trace here: {done.err[-200:]}")
        lines = done.err.splitlines()
        opened = next((n for n, line in enumerate(lines) if "O_APPEND" in line), len(lines))
        return [line.split("(")[0].split()[-1] for line in lines[opened + 1 :]]

    calls("p1")
    assert calls("p1", "p2", "p3")[:2] == ["write", "fsync"], "three machines, one write"
    assert calls("p1", "p2", "p3") == [], "nothing new: the file is not even opened for writing"
