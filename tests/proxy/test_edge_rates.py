"""Limits by path, for one caller, one address or everybody; and a wait that is right to the second."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmpod.config import KEYS_FILE, CallerKey, ProxySettings, proxy_settings
from llmpod.config.rates import Per, RateLimit
from llmpod.errors import ConfigError
from llmpod.observe import open_log
from llmpod.proxy.accounts import Accounts
from llmpod.proxy.ask import Ask, Leave
from llmpod.proxy.limits import MAX_ACCOUNTS, Limiter
from tests.proxy.front import proxy, settings
from tests.proxy.keys import KEYS, call, entry, write_keys
from tests.proxy.stub import CHAT, stub

EMBEDDINGS = "/v1/embeddings"


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def accounts() -> Iterator[Accounts]:
    log = open_log("ERROR")
    yield Accounts(None, log)
    log.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limiter(
    accounts: Accounts, clock: Clock, rates: dict[str, RateLimit], requests: int | None = None
) -> Limiter:
    limits = ProxySettings(rate_limits=rates, requests_per_minute=requests)
    return Limiter(limits, accounts, monotonic=clock, clock=clock)


def ask(path: str = CHAT, *, client: str = "10.0.0.1", key: CallerKey | None = None) -> Ask:
    leave = Leave(key.id, key=key) if key else Leave()
    return Ask("POST", path, path.encode(), [], b"{}", client, leave=leave)


def served(limits: Limiter, question: Ask, tries: int = 20) -> int:
    """How many of so many requests at once are let through."""
    return [limits.refusal(question) for _ in range(tries)].count(None)


def a_minute(requests: int, per: Per = Per.CALLER) -> RateLimit:
    return RateLimit(requests_per_minute=requests, per=per)


def test_a_limit_of_one_path(cache_dir: Path, env: dict[str, str]) -> None:
    """Through the front door: embeddings are limited, chats are not, and the refusal says what and for how long."""
    more = {"LLMPOD_RATE_LIMITS": json.dumps({EMBEDDINGS: {"requests_per_minute": 3}})}
    body = b'{"model": "m", "input": "x"}'
    with stub() as server, proxy(env | settings(cache_dir, server.url, **more)) as front:
        replies = [front.ask(body, path=path) for path in (EMBEDDINGS, "/v1/%65mbeddings") * 3]
        assert [reply.status for reply in replies] == [200, 200, 200, 429, 429, 429]
        assert [call(front, CHAT, {}, f"{n}").status for n in range(6)] == [200] * 6
        refused = replies[3]
        assert f"requests a minute to {EMBEDDINGS}" in refused.json["error"]["message"]
        assert refused.json["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(refused.headers["retry-after"]) <= 20


def test_one_address_with_two_keys(tmp_path: Path, env: dict[str, str]) -> None:
    path = tmp_path / KEYS_FILE
    write_keys(path, entry("infer"), entry("second"))
    rates = {"*": {"requests_per_minute": 3, "per": "address"}}
    more = {
        "LLMPOD_AUTH": "keys",
        "LLMPOD_KEYS_FILE": str(path),
        "LLMPOD_RATE_LIMITS": json.dumps(rates),
    }
    with stub() as server, proxy(env | settings(tmp_path / "c", server.url, **more)) as front:
        got = [
            call(front, CHAT, {"x-api-key": KEYS[who]}, f"{n}").status
            for n in range(3)
            for who in ("infer", "second")
        ]
    assert got == [200, 200, 200, 429, 429, 429]


@pytest.mark.parametrize(
    ("pattern", "path", "limited"),
    [
        (EMBEDDINGS, EMBEDDINGS, True),
        (EMBEDDINGS, EMBEDDINGS + "/", True),
        (EMBEDDINGS, "/v1//embeddings", True),
        (EMBEDDINGS, "/v1/embeddings%2f", True),
        (EMBEDDINGS, "/coder/v1/embeddings", True),
        ("/coder/v1/*", "/coder/v1/embeddings", True),
        ("/coder/v1/*", EMBEDDINGS, False),
        (EMBEDDINGS, "/v1/embeddings2", False),
        ("/v1/audio/*", "/v1/audio/speech", True),
        ("/v1/audio/*", "/v1/audio", False),
        ("/v1/audio/*", CHAT, False),
        ("/v1/*", CHAT, True),
        ("*", "/tokenize", True),
    ],
)
def test_patterns(accounts: Accounts, clock: Clock, pattern: str, path: str, *, limited: bool) -> None:
    limits = limiter(accounts, clock, {pattern: a_minute(2)})
    assert served(limits, ask(path)) == (2 if limited else 20)


def test_who_shares_a_limit(accounts: Accounts, clock: Clock) -> None:
    one, two = CallerKey("one", "one", ""), CallerKey("two", "two", "")
    callers = [ask(key=one), ask(key=two), ask(key=two, client="10.0.0.2")]
    counts = {
        per: [served(limits, caller) for caller in callers]
        for per in Per
        for limits in [limiter(accounts, clock, {CHAT: a_minute(5, per)})]
    }
    assert counts == {Per.CALLER: [5, 5, 0], Per.ADDRESS: [5, 0, 5], Per.EVERYBODY: [5, 0, 0]}


def test_all_limits_that_match_must_allow_it(accounts: Accounts, clock: Clock) -> None:
    """And one that is refused by one of them takes nothing from the others."""
    limits = limiter(accounts, clock, {EMBEDDINGS: a_minute(2), "/v1/*": a_minute(7)}, requests=5)
    assert served(limits, ask(EMBEDDINGS)) == 2
    assert served(limits, ask(CHAT)) == 3
    assert served(limits, ask("/tokenize")) == 0


@pytest.mark.parametrize("per_minute", [1, 2, 7, 29, 60, 61, 90, 1000])
def test_the_wait_that_is_named_is_right(accounts: Accounts, clock: Clock, per_minute: int) -> None:
    """Whoever waits so many whole seconds is served; a second less is too little."""
    limits = limiter(accounts, clock, {"*": a_minute(per_minute)})
    for _ in range(50):
        while (refused := limits.refusal(ask())) is None:
            clock.now += 0.0001
        named = max(1, math.ceil(refused.retry_after or 0))
        clock.now += named - 1
        if named > 1:
            assert limits.refusal(ask()) is not None
        clock.now += 1
        assert limits.refusal(ask()) is None
        clock.now += 0.37


def test_the_exact_wait_is_enough(accounts: Accounts, clock: Clock) -> None:
    """However fractions are rounded: who waits to the microsecond is not sent away again."""
    for per_minute in range(1, 200):
        limits = limiter(accounts, clock, {"*": a_minute(per_minute)})
        assert served(limits, ask(), per_minute + 3) == per_minute
        for _ in range(5):
            refused = limits.refusal(ask())
            assert refused is not None
            clock.now += refused.retry_after or 0.0
            assert limits.refusal(ask()) is None


def test_tokens_of_a_path(accounts: Accounts, clock: Clock) -> None:
    limits = limiter(accounts, clock, {CHAT: RateLimit(tokens_per_minute=60)})
    assert limits.meter(ask(EMBEDDINGS)) is None
    meter = limits.meter(ask())
    assert meter is not None
    meter.hear(b'{"usage": {"total_tokens": 90}}')
    limits.used(ask(), meter, counts=True)
    refused = limits.refusal(ask())
    assert refused is not None
    assert "tokens a minute" in refused.message
    assert refused.retry_after == pytest.approx(31)
    assert limits.refusal(ask(EMBEDDINGS)) is None


def test_accounts_are_bounded(accounts: Accounts, clock: Clock) -> None:
    """Thousands of addresses: the limit of everybody is not forgotten for them."""
    limits = limiter(accounts, clock, {"*": a_minute(9, Per.EVERYBODY), "/v1/*": a_minute(5, Per.ADDRESS)})
    for number in range(MAX_ACCOUNTS + 10):
        limits.refusal(ask(client=f"10.{number // 65536}.{number // 256 % 256}.{number % 256}"))
    assert served(limits, ask(client="10.9.9.9")) == 0


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "{", '{"v1": {"requests_per_minute": 1}}', '{"*": {}}', '{"*": {"requests_per_minute": 0}}'),
        *('{"*": {"requests_per_minute": 1, "per": "ip"}}', '{"*": {"request_per_minute": 1}}'),
    ],
)
def test_a_wrong_table_is_refused(text: str) -> None:
    environ = {"RUNPOD_ENDPOINT": "http://127.0.0.1:1", "LLMPOD_RATE_LIMITS": text}
    with pytest.raises(ConfigError, match="LLMPOD_RATE_LIMITS"):
        proxy_settings([], environ)
