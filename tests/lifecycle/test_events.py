"""The journal of events: durable, bounded, and never a line lost to a torn one."""

import os
import signal
import stat
import sys
from pathlib import Path

import pytest

from llmpod.errors import StateError
from llmpod.lifecycle.events import Entry, EventLog, Progress
from llmpod.model import Event, EventKind
from tests.support.process import running
from tests.support.wait import eventually

NOW = 1_795_000_000.0


def event(text: str = "pod p1", kind: EventKind = EventKind.CREATED, at: float = NOW) -> Event:
    return Event(kind, "default", text, at)


def texts(log: EventLog) -> list[str]:
    return [entry.event.text for entry in log.entries()]


def test_what_is_appended_is_read_in_order_by_another_reader(state_dir: Path) -> None:
    log = EventLog(state_dir)
    written = [log.append(event(f"number {n}")) for n in range(5)]
    assert EventLog(state_dir).entries() == written
    numbers = [entry.number for entry in written]
    assert numbers == sorted(set(numbers))
    assert stat.S_IMODE((state_dir / "events.jsonl").stat().st_mode) == 0o600


def test_every_field_survives(state_dir: Path) -> None:
    log = EventLog(state_dir)
    told = [Event(kind, "Modell Ä", f"{kind}\nüber 2 Zeilen", NOW + 0.5) for kind in EventKind]
    for one in told:
        log.append(one)
    assert [entry.event for entry in log.entries()] == told


@pytest.mark.parametrize("cut", [2, 20, 60])
def test_a_torn_line_costs_only_itself(state_dir: Path, cut: int) -> None:
    log = EventLog(state_dir)
    log.append(event("first"))
    log.append(event("torn"))
    path = state_dir / "events.jsonl"
    os.truncate(path, path.stat().st_size - cut)
    assert texts(log) == ["first"]
    last = log.append(event("after"))
    assert texts(log) == ["first", "after"]
    assert last.number > log.entries()[0].number


@pytest.mark.parametrize("junk", [b"\x00" * 50 + b"\n", b"[1]\n", b'{"number": 1}\n', b"\xff\xfe\n", b"\n"])
def test_damage_in_the_middle_is_skipped(state_dir: Path, junk: bytes) -> None:
    log = EventLog(state_dir)
    log.append(event("one"))
    with (state_dir / "events.jsonl").open("ab") as file:
        file.write(junk)
    log.append(event("two"))
    assert texts(log) == ["one", "two"]


def test_it_is_bounded_and_keeps_the_newest(state_dir: Path) -> None:
    log = EventLog(state_dir, max_bytes=2000)
    for number in range(200):
        log.append(event(f"number {number}"))
    kept = texts(log)
    assert kept[-1] == "number 199"
    assert kept == [f"number {n}" for n in range(200 - len(kept), 200)]
    sizes = [path.stat().st_size for path in state_dir.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 2000


def test_numbers_grow_over_rotation_loss_of_the_journal_and_a_clock_set_back(state_dir: Path) -> None:
    log = EventLog(state_dir, max_bytes=300)
    numbers = [log.append(event(f"number {n}", at=NOW - n)).number for n in range(20)]
    (state_dir / "events.jsonl").unlink()
    numbers.append(log.append(event("old file only", at=NOW + 1)).number)
    for path in state_dir.iterdir():
        path.unlink()
    numbers.append(log.append(event("nothing left", at=NOW + 60)).number)
    assert numbers == sorted(set(numbers))


def test_a_secret_never_reaches_the_file(state_dir: Path) -> None:
    secrets = ["rpa_ABCDEFGHIJKLMNOP0123", "hf_abcdefghijklmnopqrst", "sk-llmpod-" + "ab" * 32]
    log = EventLog(state_dir)
    log.append(event(f"failed with {' and '.join(secrets)}, Authorization: Bearer abcdefgh12345"))
    text = (state_dir / "events.jsonl").read_text()
    assert not [secret for secret in [*secrets, "abcdefgh12345"] if secret in text]
    assert "failed with *** and ***" in text


def test_a_long_text_is_cut(state_dir: Path) -> None:
    entry = EventLog(state_dir).append(event("x" * 10_000))
    assert 1000 < len(entry.event.text) < 2000


def test_a_journal_that_cannot_be_written_says_so(state_dir: Path) -> None:
    (state_dir / "events.jsonl").mkdir()
    with pytest.raises(StateError, match=r"events\.jsonl"):
        EventLog(state_dir).append(event())


def test_a_link_in_its_place_is_not_followed(state_dir: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (state_dir / "events.jsonl").symlink_to(victim)
    with pytest.raises(StateError):
        EventLog(state_dir).append(event())
    assert victim.read_text() == "precious"


def test_progress_is_kept_and_damage_means_start_anew(state_dir: Path) -> None:
    log = EventLog(state_dir)
    assert log.progress() == {}
    progress = {"a": Progress(5), "b": Progress(6, 3, NOW)}
    log.delivered(progress)
    assert EventLog(state_dir).progress() == progress
    for damage in ("", "[]", '{"a": 1}', '{"a": {"done": "x", "failures": 0, "next_try_at": 0}}'):
        (state_dir / "delivered.json").write_text(damage)
        assert log.progress() == {}


_WRITER = """
import sys, itertools
from pathlib import Path
from llmpod.lifecycle.events import EventLog
from llmpod.model import Event, EventKind
log = EventLog(Path(sys.argv[1]), max_bytes=5000)
for n in itertools.count():
    log.append(Event(EventKind.READY, "m", f"number {n}", 1.0))
    print(n, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(state_dir: Path) -> None:
    for _ in range(5):
        with running([sys.executable, "-c", _WRITER, state_dir]) as writer:
            eventually(lambda w=writer: len(w.out) > 200, within=20)  # type: ignore[misc]
            writer.signal(signal.SIGKILL)
            assert writer.wait() == -signal.SIGKILL
            acknowledged = int(writer.out.splitlines()[-2])  # the last line may be torn
        kept: list[Entry] = EventLog(state_dir).entries()
        assert kept[-1].event.text in {f"number {acknowledged + more}" for more in range(3)}
