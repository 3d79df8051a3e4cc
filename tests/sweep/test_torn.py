"""G18: writers of state and cache that are killed or refused by the disk at every call: old or new, never torn (F39).

The normal suite plays a seeded sample; the long one 1,000 kills at random moments, and each of the calls that change a
file with each of ENOSPC, EIO and SIGKILL.
"""

import json
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import procfs
from tests.support.process import PYTHON, run
from tests.support.source import ROOT
from tests.support.wait import eventually
from tests.sweep.managers import no_strace
from tests.sweep.torn import JUDGE

SEED = 18
STATE = {"openat": 6, "write": 3, "fsync": 6, "/^rename": 3, "close": 6}
CACHE = {"openat": 12, "writev": 9, "/^rename": 3, "pwrite64": 2, "/^unlink": 4, "ftruncate": 1, "mkdir": 1}
FATES = ("error=ENOSPC", "error=EIO", "signal=SIGKILL")
Cell = tuple[str, str, int, str]
CELLS: list[Cell] = [
    (kind, call, number, fate)
    for kind, calls in (("state", STATE), ("cache", CACHE))
    for call, most in calls.items()
    for number in range(1, most + 1)
    for fate in FATES
]
SAMPLE = [
    ("state", "fsync", 1, "error=EIO"),
    ("state", "write", 2, "error=ENOSPC"),
    ("cache", "writev", 2, "error=ENOSPC"),
    *random.Random(SEED).sample(CELLS, 4),
]


def play(directory: Path, cell: Cell) -> bool:
    """One writer under strace; whether its fate struck. What it left is judged."""
    kind, call, number, fate = cell
    argv = [PYTHON, "-m", "tests.sweep.torn", "write", kind, str(directory)]
    tracing = ["strace", "-f", "-o", str(directory / "trace"), "-e", f"trace={call}"]
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(argv, cwd=ROOT, env=environ, stdout=subprocess.PIPE) as writer:
        try:
            eventually(lambda: (seen := procfs.read(writer.pid)) and seen.state == "T", within=30)
            inject = ["-e", f"inject={call}:{fate}:when={number}", "-p", str(writer.pid)]
            with subprocess.Popen([*tracing, *inject], stderr=subprocess.PIPE) as tracer:
                assert tracer.stderr is not None
                assert b"attached" in tracer.stderr.readline()
                writer.send_signal(signal.SIGCONT)
                out, _ = writer.communicate(timeout=60)
        finally:
            writer.kill()
    safe = max([0, *map(int, out.split())])
    struck = "(INJECTED)" in (directory / "trace").read_text() or writer.returncode == -signal.SIGKILL
    assert writer.returncode == (-signal.SIGKILL if struck and "signal" in fate else 0)
    if "error" in fate and kind == "cache":
        assert safe == 9, "what the disk refused was stored when it took it again"
    JUDGE[kind](directory / "real", safe)
    return struck


@pytest.mark.component
@pytest.mark.parametrize("cell", SAMPLE, ids=lambda cell: "-".join(map(str, cell)))
def test_a_sample_of_calls_that_fail(tmp_path: Path, cell: Cell) -> None:
    if why := no_strace():
        pytest.skip(why)
    play(tmp_path, cell)


@pytest.mark.long
@pytest.mark.component
def test_every_call_fails_or_is_the_last_one(tmp_path: Path) -> None:
    if why := no_strace():
        pytest.skip(why)
    struck = 0
    for number, cell in enumerate(CELLS):
        directory = tmp_path / str(number)
        directory.mkdir()
        struck += play(directory, cell)
    assert struck > len(CELLS) * 0.8, f"{struck} of {len(CELLS)} fates struck"


def killed(directory: Path, kind: str, count: int) -> None:
    done = run(
        [PYTHON, "-m", "tests.sweep.torn", "kill", kind, directory, str(count), str(SEED)], within=1200
    ).expect()
    assert json.loads(done.out)["kills"] == count


@pytest.mark.parametrize("kind", sorted(JUDGE))
def test_a_sample_of_kills(tmp_path: Path, kind: str) -> None:
    killed(tmp_path, kind, 12)


@pytest.mark.long
@pytest.mark.parametrize("kind", sorted(JUDGE))
def test_a_thousand_kills(tmp_path: Path, kind: str) -> None:
    killed(tmp_path, kind, 500)
