"""The ledger with real files: every machine's cost is counted once, whatever was missed, torn or told twice."""

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from llmpod.errors import NewerState, StateError
from llmpod.lifecycle.book import SWITCH_MARGIN_SECONDS, Book, Tenant, tenants
from llmpod.lifecycle.ledger import Ledger
from llmpod.lifecycle.match import new_name
from llmpod.lifecycle.spending import Spent, spent
from llmpod.model import Instance, Observed, Phase, Record
from tests.lifecycle.entries import DAY, HOUR, NOON, machine, mine


@pytest.fixture
def ledger(state_dir: Path) -> Ledger:
    return Ledger(state_dir / "ledger.jsonl")


def sync(ledger: Ledger, *seen: Instance, at: float, until: float | None = None) -> Book:
    book = ledger.sync(seen, lambda _: mine(until), now=at)
    assert book.error is None
    assert ledger.read() == book, "what is returned is what stands in the file"
    return book


def usd(book: Book, at: float) -> Spent:
    found = spent(book.entries, 0, at)
    return Spent(round(found.usd, 9), round(found.unknown_hours, 9))


def test_from_the_providers_creation_time_to_the_pass_that_misses_it(ledger: Ledger) -> None:
    """Found 10 minutes after its creation: those are paid for, too."""
    sync(ledger, machine(), at=NOON + 600)
    book = sync(ledger, at=NOON + 2 * HOUR)
    assert [e.pod for e in book.open] == []
    assert usd(book, NOON + DAY) == Spent(1.0)


def test_a_pass_with_nothing_new_does_not_touch_the_file(ledger: Ledger) -> None:
    sync(ledger, machine(), at=NOON)
    before = ledger.path.stat()
    for minute in range(50):
        sync(ledger, machine(), at=NOON + minute)
    after = ledger.path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_no_machine_no_file(ledger: Ledger) -> None:
    assert sync(ledger, at=NOON) == Book()
    assert not ledger.path.exists()


def test_the_file_is_private_and_only_grows(ledger: Ledger) -> None:
    sync(ledger, machine(), at=NOON)
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600
    inode, first = ledger.path.stat().st_ino, ledger.path.read_bytes()
    sync(ledger, at=NOON + HOUR)
    assert ledger.path.stat().st_ino == inode
    assert ledger.path.read_bytes().startswith(first)
    assert ledger.path.read_bytes().endswith(b"\n")


def test_a_changed_rate_counts_from_then_on(ledger: Ledger) -> None:
    sync(ledger, machine(usd=1.0), at=NOON)
    sync(ledger, machine(usd=3.0), at=NOON + HOUR)
    book = sync(ledger, at=NOON + 2 * HOUR)
    assert usd(book, NOON + DAY) == Spent(4.0)


def test_a_stopped_machine_costs_no_gpu_though_its_price_is_still_told(ledger: Ledger) -> None:
    sync(ledger, machine(usd=1.0), at=NOON)
    sync(ledger, machine(usd=1.0, observed=Observed.EXITED), at=NOON + HOUR)
    book = sync(ledger, machine(usd=1.0, observed=Observed.EXITED), at=NOON + 5 * HOUR)
    assert usd(book, NOON + 5 * HOUR) == Spent(1.0)
    book = sync(ledger, machine(usd=None), at=NOON + 6 * HOUR)
    assert usd(book, NOON + 7 * HOUR) == Spent(2.0), "started again at its old price"


def test_an_unknown_price_is_hours_not_nothing_until_somebody_tells_it(ledger: Ledger) -> None:
    book = sync(ledger, machine(usd=None), at=NOON)
    assert usd(book, NOON + 3 * HOUR) == Spent(0.0, 3.0)
    book = sync(ledger, machine(usd=2.0), at=NOON + 3 * HOUR)
    assert usd(book, NOON + 3 * HOUR) == Spent(6.0), "it was the same machine before"
    book = sync(ledger, machine(usd=None), at=NOON + 4 * HOUR)
    assert usd(book, NOON + 4 * HOUR) == Spent(8.0), "a listing without the price does not forget it"


@pytest.mark.parametrize("price", [float("nan"), float("inf"), -1.0])
def test_a_price_that_is_none_is_unknown(ledger: Ledger, price: float) -> None:
    assert usd(sync(ledger, machine(usd=price), at=NOON), NOON + HOUR) == Spent(0.0, 1.0)


def test_absent_from_one_listing_and_there_again(ledger: Ledger) -> None:
    """Listings lag and fail: a machine that is back was there all the time."""
    sync(ledger, machine(), at=NOON)
    assert not sync(ledger, at=NOON + HOUR).open
    book = sync(ledger, machine(), at=NOON + 2 * HOUR)
    assert len(book.entries) == 1
    assert usd(book, NOON + 4 * HOUR) == Spent(2.0)


def test_days_without_a_look_end_where_its_own_switch_ended_it(ledger: Ledger) -> None:
    sync(ledger, machine(), at=NOON, until=NOON + HOUR)
    ended = NOON + HOUR + SWITCH_MARGIN_SECONDS
    most = Spent(round(0.5 * (ended - NOON) / HOUR, 9))
    assert usd(ledger.read(), NOON + 9 * DAY) == most, "also while the ledger is all that is known"
    book = sync(ledger, at=NOON + 9 * DAY, until=NOON + HOUR)
    assert usd(book, NOON + 9 * DAY) == most


def test_a_machine_that_outlives_its_switch_goes_on_costing(ledger: Ledger) -> None:
    sync(ledger, machine(), at=NOON, until=NOON + HOUR)
    book = sync(ledger, machine(), at=NOON + 10 * HOUR, until=NOON + HOUR)
    assert usd(book, NOON + 20 * HOUR) == Spent(10.0)
    lines = ledger.path.read_text().count("\n")
    sync(ledger, machine(), at=NOON + 11 * HOUR, until=NOON + HOUR)
    assert ledger.path.read_text().count("\n") == lines, "told once"


def test_found_late_for_the_first_time(ledger: Ledger) -> None:
    book = sync(ledger, machine(), at=NOON + 10 * HOUR, until=NOON + HOUR)
    assert usd(book, NOON + 10 * HOUR) == Spent(5.0)


def test_an_earlier_end_that_is_known(ledger: Ledger) -> None:
    sync(ledger, machine("p1"), machine("p2"), machine("p3"), at=NOON)
    ended = {"p1": NOON + HOUR, "p2": NOON - DAY, "p3": NOON + 9 * DAY}
    book = ledger.sync((), lambda _: mine(), now=NOON + 3 * HOUR, ended=ended)
    ends = {pod: (e.closed_at or 0) - NOON for pod, e in book.machines.items()}
    assert ends == {"p1": HOUR, "p2": 0.0, "p3": 3 * HOUR}


def test_a_machine_that_is_made_is_noted_and_others_are_not_closed_by_that(ledger: Ledger) -> None:
    sync(ledger, machine("p1"), at=NOON)
    book = ledger.note(machine("p2", created=None), lambda _: mine(), now=NOON + HOUR)
    assert [e.pod for e in book.open] == ["p1", "p2"]
    assert book.machines["p2"].opened_at == NOON + HOUR


def test_whose_a_machine_is_may_be_learnt_later(ledger: Ledger) -> None:
    ledger.sync([machine()], lambda _: Tenant(), now=NOON)
    book = sync(ledger, machine(), at=NOON + 60, until=NOON + HOUR)
    assert (book.machines["p1"].model, book.machines["p1"].until) == ("org/m", NOON + HOUR)
    assert usd(book, NOON + HOUR) == Spent(0.5)


def test_a_clock_of_the_provider_that_is_ahead_gives_no_negative_cost(ledger: Ledger) -> None:
    sync(ledger, machine(created=NOON + 500), at=NOON)
    book = sync(ledger, at=NOON - 100)
    assert usd(book, NOON + DAY) == Spent(0.0)


def test_tenants_by_record_by_name_and_not_at_all() -> None:
    records = {
        "chat": Record(phase=Phase.READY, name="n1", instance_id="p1", model="org/chat", switch_at=NOON),
        "code": Record(model="org/code"),
        "bare": Record(),
    }
    whose = tenants(records)
    assert whose(machine("p1")) == Tenant("org/chat", NOON)
    assert whose(machine("px", name="n1")) == Tenant("org/chat", NOON)
    assert whose(machine("p2", name=new_name("0a1b2c3d", "code", "0f"))) == Tenant("org/code")
    assert whose(machine("p3", name=new_name("0a1b2c3d", "bare", "0f"))) == Tenant("bare")
    assert whose(machine("p4", name="somebody-elses")) == Tenant()


# --- damage
@pytest.mark.parametrize(
    "damage",
    [
        b'{"v": 1, "at": 1795262400.0, "event": "open", "pod": "p9", "na',
        b"\x00" * 64,
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b'{"v": 1, "at": 1, "event": "close", "pod": "never-opened", "ended": 5}',
        b'{"v": 1, "at": 1, "event": "dance", "pod": "p1"}',
        b'{"v": 1, "at": "x", "event": "rate", "pod": "p1", "usd_per_hour": 1}',
        b'{"v": 1, "at": 1, "event": "rate", "pod": "p1", "usd_per_hour": NaN}',
        b'{"v": 1, "at": 1, "event": "rate", "pod": "p1", "usd_per_hour": true}',
        b'{"v": 1, "at": 1, "event": "rate", "pod": "p1", "usd_per_hour": -1}',
    ],
)
def test_a_damaged_line_is_kept_and_skipped(ledger: Ledger, damage: bytes) -> None:
    sync(ledger, machine("p1"), at=NOON)
    good = ledger.path.read_bytes()
    with ledger.path.open("ab") as file:
        file.write(damage)
    assert (ledger.read().damaged, usd(ledger.read(), NOON + HOUR)) == (1, Spent(0.5))
    book = sync(ledger, machine("p1"), machine("p2"), at=NOON + HOUR)
    assert len(book.open) == 2, "the new line does not continue the torn one"
    assert book.damaged == 1
    assert ledger.path.read_bytes().startswith(good + damage + b"\n")


def test_wherever_the_tail_is_torn_the_next_pass_says_it_again(ledger: Ledger) -> None:
    first = sync(ledger, machine("p1"), at=NOON)
    kept = ledger.path.read_bytes()
    whole_book = sync(ledger, machine("p1", usd=1.0), machine("p2"), at=NOON + HOUR)
    whole = ledger.path.read_bytes()
    for length in range(len(kept), len(whole)):
        ledger.path.write_bytes(whole[:length])
        assert set(ledger.read().machines) >= set(first.machines)
        book = sync(ledger, machine("p1", usd=1.0), machine("p2"), at=NOON + HOUR)
        assert book.machines == whole_book.machines, whole[:length]


def test_a_newer_ledger_is_left_alone(ledger: Ledger) -> None:
    ledger.path.write_text('{"v": 2, "at": 1, "event": "open"}\n')
    with pytest.raises(NewerState, match="newer"):
        ledger.sync([machine()], lambda _: mine(), now=NOON)
    assert ledger.path.read_text() == '{"v": 2, "at": 1, "event": "open"}\n'


def test_an_unreadable_ledger_says_what_to_do(ledger: Ledger) -> None:
    ledger.path.mkdir()
    with pytest.raises(StateError, match=r"Cannot read .*ledger\.jsonl.* move it away"):
        ledger.read()


def test_a_ledger_that_cannot_be_written_still_counts(ledger: Ledger) -> None:
    """A link is refused: it could lead anywhere. The pass has its figures all the same."""
    target = ledger.path.with_name("elsewhere")
    target.touch()
    ledger.path.symlink_to(target)
    book = ledger.sync([machine()], lambda _: mine(), now=NOON)
    assert book.error is not None
    assert "Cannot write the ledger" in str(book.error)
    assert usd(book, NOON + HOUR) == Spent(0.5)
    assert target.read_bytes() == b""


def test_ten_thousand_machines_are_read_quickly(ledger: Ledger) -> None:
    """Years of use: the file is read in every pass."""
    seen: Sequence[Instance] = [machine(f"p{n}") for n in range(10_000)]
    ledger.sync(seen, lambda _: mine(), now=NOON)
    ledger.sync((), lambda _: mine(), now=NOON + HOUR)
    before = os.times()
    assert len(ledger.read().entries) == 10_000
    after = os.times()
    assert after.user + after.system - before.user - before.system < 1.0
    assert json.loads(ledger.path.read_text().splitlines()[0])["event"] == "open"
