"""Durable files, kernel locks and process identity, under real kills and real processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmpod import identity
from llmpod.errors import Busy, NewerState, StateError
from llmpod.lifecycle import files
from llmpod.lifecycle.share import Follower, UsageWriter
from llmpod.lifecycle.state import ProxyRecord, State
from llmpod.lifecycle.stopping import stop
from llmpod.lifecycle.store import Store
from llmpod.model import Direction, Phase, ProcessId, Record, Usage, Want
from tests.support.wait import eventually

_WRITER = """
import sys; sys.path.insert(0, sys.argv[2])
from pathlib import Path
from llmpod.lifecycle.files import write_atomic
n = 0
while True:
    n += 1
    write_atomic(Path(sys.argv[1]), '{"n": %d, "pad": "%s"}' % (n, "x" * 20000))
"""
ROOT = str(Path(__file__).resolve().parents[2])


def test_a_killed_writer_never_leaves_a_torn_file(state_dir: Path) -> None:
    path, seen = state_dir / "f.json", set()
    for _ in range(12):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path), ROOT])
        before = files.read_json(path) or {"n": 0}
        eventually(lambda b=before: (files.read_json(path) or {"n": 0})["n"] != b["n"], within=20)  # type: ignore[misc]
        writer.kill()
        writer.wait()
        document = files.read_json(path)
        assert document is not None
        assert len(document["pad"]) == 20000
        seen.add(document["n"])
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(seen) > 1


def test_a_full_disk_leaves_the_old_text(state_dir: Path) -> None:
    path = state_dir / "f.json"
    files.write_atomic(path, "old")
    code = (
        "import resource, signal, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\nfrom llmpod.errors import StateError\n"
        "from llmpod.lifecycle.files import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_atomic(Path(sys.argv[1]), 'x' * 5000)\n"
        "except StateError as e: print(e); sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), ROOT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stderr
    assert "Nothing was changed" in done.stdout
    assert path.read_text() == "old"
    assert list(state_dir.iterdir()) == [path]


_HOLDER = """
import signal, sys; sys.path.insert(0, sys.argv[2])
from pathlib import Path
from llmpod.lifecycle.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""


def test_the_lock_keeps_two_apart_and_dies_with_its_owner(state_dir: Path) -> None:
    path = state_dir / "lock"
    owner = subprocess.Popen([sys.executable, "-c", _HOLDER, str(path), ROOT], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"held\n"
    with pytest.raises(Busy, match=str(owner.pid)), files.locked(path):
        pass
    owner.kill()
    owner.communicate()
    with files.locked(path):
        assert path.exists()


def test_create_once_gives_all_the_same_answer(state_dir: Path) -> None:
    path = state_dir / "id"
    assert {files.create_once(path, lambda n=n: str(n)) for n in range(5)} == {"0"}  # type: ignore[misc]


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(StateError):
        files.private_dir(tmp_path / "link")


def test_state_orders_and_usage_come_back_as_written(state_dir: Path) -> None:
    store = Store(state_dir / "pod_state.json")
    record = Record(phase=Phase.READY, name="n", suspects=(("x", 1.0),), config={"a": [1]}, deadline=5.0)
    proxy = ProxyRecord(ProcessId(1, 2, "b"), 8000, "t", "d", 3.0)
    store.save(State({"default": record}, proxy, 4.0))
    read = Store(store.state_file).load()
    assert read == State({"default": record}, proxy, 4.0, install_id=store.install_id)
    store.order({"default": Want(Direction.DOWN, 1.0, "me", until=9.0)})
    store.order({"other": Want(Direction.UP, 2.0, "me")})
    assert {name: want.direction for name, want in store.orders().items()} == {
        "default": "down",
        "other": "up",
    }
    UsageWriter(store.state_file).write({"default": Usage(1.0, 2, None, 3)})
    assert store.usage() == {"default": Usage(1.0, 2, None, 3)}


def test_the_state_file_holds_no_key_and_the_proxy_finds_it_all_the_same(state_dir: Path) -> None:
    store = Store(state_dir / "pod_state.json")
    store.save(State({"default": Record(phase=Phase.READY, name="pod-1", base_url="http://x", model="m")}))
    target = Follower(store.state_file).read().targets["default"]
    assert target.api_key == store.pod_key("pod-1") != store.pod_key("pod-2")
    written = b"".join(p.read_bytes() for p in state_dir.rglob("*") if p.is_file())
    assert str(target.api_key).encode() not in written
    assert str(target.api_key) not in repr(target)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema": 1}', '{"schema": 1, "models": {"d": {"phase": "x"}}}']
)
def test_a_damaged_state_is_an_error_and_not_an_empty_one(state_dir: Path, text: str) -> None:
    store = Store(state_dir / "pod_state.json")
    store.state_file.write_text(text)
    with pytest.raises(StateError):
        store.load()


def test_a_newer_state_is_refused(state_dir: Path) -> None:
    store = Store(state_dir / "pod_state.json")
    store.state_file.write_text(json.dumps({"schema": 99, "models": {}}))
    with pytest.raises(NewerState, match="newer"):
        store.load()


def test_a_stranger_with_our_pid_is_never_signalled() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        mine = identity.process_id(stranger.pid)
        assert mine is not None
        stop(ProcessId(mine.pid, mine.started + 1, mine.boot))
        stop(ProcessId(mine.pid, mine.started, "another boot"))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    assert identity.process_id(stranger.pid) != mine


def test_a_process_deaf_to_sigterm_is_killed() -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    deaf = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert deaf.stdout is not None
    assert deaf.stdout.readline() == b"deaf\n"
    mine = identity.process_id(deaf.pid)
    assert mine is not None
    ticks = iter(range(0, 10_000, 1))
    stop(mine, clock=lambda: float(next(ticks)))
    deaf.stdout.close()
    eventually(lambda: identity.process_id(deaf.pid) is None)
    deaf.returncode = -9
