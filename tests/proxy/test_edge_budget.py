"""Money of keys: what a request costs, when a budget is spent, and that what was used outlives the proxy."""

import json
import math
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmpod.config import KEYS_FILE, CallerKey, read_keys
from llmpod.config.rates import TokenPrice
from llmpod.errors import StateError
from llmpod.lifecycle.tally import BudgetSpent, Tally, Used, check_budget, read_tally, tally_file, write_tally
from llmpod.model import Phase, Record
from llmpod.observe import open_log
from llmpod.proxy.accounts import Accounts
from llmpod.proxy.costs import Bill, Book, Till
from llmpod.proxy.meter import Meter
from llmpod.proxy.route import Destination
from tests.proxy.front import Proxy, proxy, settings
from tests.proxy.keys import KEYS, call, entry, write_keys
from tests.proxy.stub import CHAT, Turn, chat, stub
from tests.proxy.test_keeper import write
from tests.support.forks import Forks
from tests.support.process import PYTHON
from tests.support.source import ROOT
from tests.support.wait import eventually

# an answer of the stub has 1 token of prompt and 2 of completion
PRICES = {"*": {"prompt": 200_000, "completion": 400_000}}  # 1 USD an answer
HOUR = 3600.0


def by(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[key]}"}


@contextmanager
def keyed(keys: Path, env: dict[str, str], endpoint: str | None, **more: str) -> Iterator[Proxy]:
    environ = {"LLMPOD_AUTH": "keys", "LLMPOD_KEYS_FILE": str(keys)}
    with proxy(env | settings(keys.parent / "c", endpoint, **environ, **more)) as front:
        yield front
        if front.process.code is None:
            front.process.stop()  # in order: what was used is written


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / KEYS_FILE


def used(keys: Path, key: str = "key_infer") -> Used:
    return read_tally(tally_file(keys)).get(key, Tally()).today


def test_a_budget_ends_with_its_figures_and_hits_are_free(keys: Path, env: dict[str, str]) -> None:
    write_keys(keys, entry("infer", usd_per_day=2.5), entry("second", usd_per_month=1))
    with stub() as server, keyed(keys, env, server.url, LLMPOD_TOKEN_PRICES=json.dumps(PRICES)) as front:
        assert [call(front, CHAT, by("infer"), f"{n}").status for n in range(4)] == [200, 200, 200, 402]
        refused = call(front, CHAT, by("infer"), "one more")
        error = refused.json["error"]
        assert (error["code"], error["type"]) == ("budget_spent", "insufficient_quota")
        assert "$2.50" in error["message"]
        assert "$3.00" in error["message"]
        left = int(refused.headers["retry-after"])
        assert abs(time.time() + left - math.ceil(time.time() / 86400) * 86400) < 30
        assert call(front, CHAT, by("infer"), "0").cache == "HIT"
        assert [call(front, CHAT, by("second"), f"{n}").status for n in range(2)] == [200, 402]
        assert len(server.turns) == 4
        write_keys(keys, entry("infer", usd_per_day=10))  # raised: at once, and what was used stays
        eventually(lambda: call(front, CHAT, by("infer"), "raised").status == 200)
    assert used(keys).usd == pytest.approx(4.0)
    assert used(keys, "key_second").usd == pytest.approx(1.0)


def test_what_was_used_outlives_the_proxy(keys: Path, env: dict[str, str]) -> None:
    """Stopped or killed: after a kill what was written lately counts on."""
    write_keys(keys, entry("infer", requests_per_day=3, usd_per_day=100))
    more = {"LLMPOD_TOKEN_PRICES": json.dumps(PRICES)}
    with stub() as server:
        with keyed(keys, env, server.url, **more) as front:
            assert call(front, CHAT, by("infer"), "first").status == 200
        assert (used(keys).requests, used(keys).tokens) == (1, 3)
        with keyed(keys, env, server.url, **more) as front:
            assert call(front, CHAT, by("infer"), "second").status == 200
            eventually(lambda: used(keys).requests == 2 and used(keys).tokens == 6, within=10)
            front.process.signal(signal.SIGKILL)
            front.process.wait()
        with keyed(keys, env, server.url, **more) as front:
            got = [call(front, CHAT, by("infer"), text).status for text in ("third", "fourth")]
            assert got == [200, 429]
    path = tally_file(keys)
    assert path.stat().st_mode & 0o777 == 0o600
    assert used(keys).usd == pytest.approx(3.0)


def test_a_damaged_file_of_what_was_used_is_begun_anew(keys: Path, env: dict[str, str]) -> None:
    write_keys(keys, entry("infer"))
    tally_file(keys).write_text('{"schema": 1, "keys": {"key_inf')
    with stub() as server, keyed(keys, env, server.url) as front:
        assert call(front, CHAT, by("infer")).status == 200
        assert [line for line in front.logs() if line["event"] == "use_of_keys_unreadable"]
    assert used(keys).requests == 1


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", "[" * 10**5, '{"schema": 9, "keys": {}}', '{"schema": 1, "keys": []}'),
        '{"schema": 1, "keys": {"k": {"day": 3}}}',
        '{"schema": 1, "keys": {"k": {"today": {"usd": NaN}}}}',
    ],
)
def test_nothing_else_is_taken_for_what_was_used(tmp_path: Path, content: str) -> None:
    (tmp_path / "x").write_text(content)
    with pytest.raises(StateError):
        read_tally(tmp_path / "x")


def test_a_machine_by_the_hour(state_dir: Path, keys: Path, env: dict[str, str]) -> None:
    """The state file names the price; four at once share the machine, and pay for its second together."""
    go = threading.Event()

    def script(turn: Turn) -> None:
        go.wait(10)
        turn.reply(chat("done"))

    write_keys(keys, entry("infer", usd_per_day=1000))
    with stub() as server:
        ready = Record(
            phase=Phase.READY,
            name="llmpod-aa-1",
            model="m",
            served_name="m",
            usd_per_hour=HOUR,  # a dollar a second
            created_at=1e9,
            base_url=server.url,
        )
        write(state_dir / "pod_state.json", ready)
        server.script = script
        with keyed(keys, env, None, LLMPOD_STATE=str(state_dir / "pod_state.json")) as front:
            eventually(lambda: front.get("/readyz").status == 200)
            clients = [front.client() for _ in range(4)]
            began = time.monotonic()
            for number, client in enumerate(clients):
                body = json.dumps({"model": "m", "messages": [{"role": "user", "content": f"{number}"}]})
                client.send("POST", CHAT, body.encode(), by("infer"))
            server.wait_turns(4)
            busy_from = time.monotonic()
            threading.Event().wait(0.5)
            busy = time.monotonic() - busy_from
            go.set()
            assert [client.reply().status for client in clients] == [200] * 4
            for client in clients:
                client.close()
    most = time.monotonic() - began  # it counts a moment after the client has its answer
    assert busy <= used(keys).usd <= most  # the machine's time, however many shared it


def test_no_price_no_budget(keys: Path, env: dict[str, str]) -> None:
    """What nobody has priced cannot be held to a budget; without one it is served, and not counted as nothing."""
    write_keys(keys, entry("infer", usd_per_day=1000), entry("second"))
    with stub() as server, keyed(keys, env, server.url) as front:
        refused = call(front, CHAT, by("infer"))
        assert (refused.status, "token_prices" in refused.json["error"]["message"]) == (402, True)
        assert call(front, CHAT, by("second")).status == 200
        assert len(server.turns) == 1
    assert (used(keys, "key_second").usd, used(keys, "key_second").unpriced) == (0.0, 1)


def test_what_fails_and_who_is_refused_pays_nothing(keys: Path, env: dict[str, str]) -> None:
    write_keys(keys, entry("infer", usd_per_day=1000))
    with stub() as server, keyed(keys, env, server.url, LLMPOD_TOKEN_PRICES=json.dumps(PRICES)) as front:
        server.script = lambda turn: turn.reply(b'{"error": {"message": "x"}}', status="400 Bad Request")
        assert [call(front, CHAT, by("infer"), f"{n}").status for n in range(3)] == [400] * 3
    assert (used(keys).requests, used(keys).usd) == (3, 0.0)


def test_the_command_shows_and_changes(tmp_path: Path, env: dict[str, str], forks: Forks) -> None:
    (tmp_path / "pod_config.json").write_text(json.dumps({"model": "a/b", "auth": "keys"}))
    keys = tmp_path / ".llmpod/pod_state" / KEYS_FILE

    def command(*words: str) -> str:
        config = str(tmp_path / "pod_config.json")
        argv = [PYTHON, str(ROOT / "manage_pod.py"), "--config", config, "keys", *words]
        return forks.run(argv, env=env).expect().out

    command("add", "laptop", "--usd-per-day", "0.5", "--requests-per-day", "9")
    (made,) = read_keys(keys)
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    spent = Used(4, 1200, 0.125)
    write_tally(
        tally_file(keys), {made.id: Tally(today, spent, today[:7], Used(40, 12_000, 0.125, unpriced=7))}
    )
    said = command("list")
    assert "requests per day 9, $0.50 per day" in said
    assert "today 4 requests, 1200 tokens, $0.12" in said
    assert "7 requests at a price nobody knows" in said
    command("limit", "laptop", "--usd-per-day", "none", "--usd-per-month", "7")
    (listed,) = json.loads(command("list", "--json"))
    assert (listed["usd_per_day"], listed["usd_per_month"], listed["requests_per_day"]) == (None, 7.0, 9)
    assert listed["used"]["today"] == {"requests": 4, "tokens": 1200, "usd": 0.125, "unpriced": 0}


# --- arithmetic --------------------------------------------------------------------------------------------------
def test_shares_add_up_to_the_time_the_machine_was_used() -> None:
    """Random comings and goings: all together pay each second in which somebody was there, once."""
    rng, till, now, busy, paid = random.Random(7), Till(), 0.0, 0.0, 0.0
    inside: list[float] = []
    for _ in range(5000):
        step = rng.expovariate(2)
        now += step
        busy += step if inside else 0.0
        if inside and rng.random() < 0.5:
            before = inside.pop(rng.randrange(len(inside)))
            paid += till.leave(now) - before
        else:
            inside.append(till.enter(HOUR, now))
    while inside:
        paid += till.leave(now) - inside.pop()
    assert paid == pytest.approx(busy)


def test_what_runs_counts_before_it_ends() -> None:
    """A budget is not overdrawn by a hundred requests that began while it was whole."""
    now = 0.0
    log = open_log("ERROR")
    accounts = Accounts(None, log, clock=lambda: now)
    book = Book({}, accounts, monotonic=lambda: now, clock=lambda: now)
    key, machine = CallerKey("k", "k", "", usd_per_day=10), Destination("m", usd_per_hour=HOUR)
    first = Bill(book, key)
    first.begin(machine, "m")
    now = 9.0
    Bill(book, key).begin(machine, "m")
    now = 11.0
    with pytest.raises(BudgetSpent, match=r"\$10\.00 for 1970-01-01 is spent: \$11\.00"):
        Bill(book, key).begin(machine, "m")
    assert first.close(0, 0) == pytest.approx(10.0)
    log.close()


def test_days_and_months_turn() -> None:
    key = CallerKey("k", "k", "", usd_per_day=1, usd_per_month=3)
    tally, now = Tally(), datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
    for day, renews in (("2026-11-28", 0.5), ("2026-11-29", 0.5), ("2026-11-30", 2.5)):
        tally.turn(day)
        check_budget(key, tally, running=0, now=now)
        tally.answered(5, 1.0)
        with pytest.raises(BudgetSpent, match=f"for {'2026-11' if renews > 1 else day} is spent") as raised:
            check_budget(key, tally, running=0, now=now)
        assert raised.value.retry_after == pytest.approx(renews * 86400)
    tally.turn("2026-12-01")
    check_budget(key, tally, running=0, now=now)
    assert (tally.today, tally.this_month) == (Used(), Used())


@pytest.mark.parametrize(
    ("names", "model", "usd"), [(("a", "b"), "x", 0.1), ((), "b", 0.1), ((), "x", 0.9), (("c",), "b", 0.9)]
)
def test_tokens_cost_what_their_model_costs(names: tuple[str, ...], model: str, usd: float) -> None:
    """By the names of what answers; by the one that was asked for only where that says nothing."""
    prices = {"b": TokenPrice(prompt=1e5, completion=0), "*": TokenPrice(prompt=9e5, completion=0)}
    prices["a"] = prices["b"]
    log = open_log("ERROR")
    book = Book(prices, Accounts(None, log), monotonic=time.monotonic, clock=time.time)
    bill = Bill(book, CallerKey("k", "k", "", usd_per_day=1))
    bill.begin(Destination("m", names=names), model)
    assert bill.close(1, 5) == pytest.approx(usd)
    log.close()


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, (10, 5)),
        ({"prompt_tokens": 10, "total_tokens": 10}, (10, 0)),
        ({"input_tokens": 7, "output_tokens": 3}, (7, 3)),
        ({"output_tokens": 3}, (25, 3)),
        ({"total_tokens": 12}, (12, 0)),
    ],
)
def test_what_servers_say_of_their_tokens(usage: dict[str, Any], tokens: tuple[int, int]) -> None:
    meter = Meter()
    meter.see(json.dumps({"choices": [], "usage": usage}).encode())
    assert meter.tokens(100) == tokens


def test_the_old_content_stands_when_the_disk_refuses(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "keys.used.json"
    with pytest.raises(StateError):
        write_tally(path, {"k": Tally()})
