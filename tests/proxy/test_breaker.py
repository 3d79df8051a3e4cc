"""A server that cannot be reached is not asked again by everybody, and is asked again as soon as that makes sense."""

from dataclasses import replace
from pathlib import Path

import pytest

from llmpod.proxy.breaker import FAILURES, PAUSE_SECONDS, Breaker
from llmpod.proxy.origin import Origin
from tests.proxy.front import Proxy, chat_body, proxy, settings
from tests.proxy.stub import chat, stub
from tests.proxy.test_keeper import READY, write
from tests.support.net import free_port
from tests.support.wait import eventually

HERE, THERE = Origin.parse("http://here:1"), Origin.parse("http://there:1")


def broken(*, at: float = 0.0) -> Breaker:
    breaker = Breaker(probe_seconds=5.0)
    for _ in range(FAILURES):
        assert breaker.refusal(HERE, at) is None
        breaker.failed(HERE, at)
    return breaker


def test_it_opens_after_failures_in_a_row_for_that_server_only() -> None:
    breaker = broken()
    assert breaker.refusal(HERE, 0.0) is not None
    assert breaker.refusal(THERE, 0.0) is None


def test_a_success_between_them_starts_the_count_anew() -> None:
    breaker = Breaker(probe_seconds=5.0)
    for _ in range(3 * FAILURES):
        breaker.failed(HERE, 0.0)
        breaker.worked(HERE)
    assert breaker.refusal(HERE, 0.0) is None


def test_one_probe_at_a_time_and_its_end_decides() -> None:
    breaker, later = broken(), PAUSE_SECONDS
    assert breaker.refusal(HERE, later - 0.1) is not None
    assert breaker.refusal(HERE, later) is None
    assert breaker.refusal(HERE, later) is not None
    breaker.failed(HERE, later + 1)
    assert breaker.refusal(HERE, later + 1) is not None
    assert breaker.refusal(HERE, later + 1 + PAUSE_SECONDS) is None
    breaker.worked(HERE)
    assert all(breaker.refusal(HERE, later + 4) is None for _ in range(3))


@pytest.mark.parametrize(("passed", "wait"), [(0.0, 2), (0.5, 2), (1.2, 1), (1.99, 1)])
def test_the_time_that_is_told_is_the_time_that_is_left(passed: float, wait: int) -> None:
    refusal = broken().refusal(HERE, passed)
    assert refusal is not None
    assert refusal.retry_after == wait
    assert passed + wait >= PAUSE_SECONDS


def test_news_open_the_door() -> None:
    breaker = broken()
    breaker.forget()
    assert breaker.refusal(HERE, 0.0) is None


def test_a_dead_server_is_a_503_that_says_when(cache_dir: Path, env: dict[str, str]) -> None:
    """F1: each refused request was tried twice; then nobody tries for a while; then it works again."""
    port = free_port()
    with proxy(env | settings(cache_dir, f"http://127.0.0.1:{port}")) as front:
        for number in range(FAILURES):
            assert front.ask(chat_body(f"refused {number}")).status == 502
        assert front.metrics()["upstream_retries"] == FAILURES
        reply = front.ask(chat_body("refused at once"))
        assert (reply.status, reply.json["error"]["code"]) == (503, "upstream_down")
        assert 1 <= int(reply.headers["retry-after"]) <= PAUSE_SECONDS
        assert front.get("/readyz").status == 503
        assert front.metrics()["upstream_retries"] == FAILURES
        assert front.get("/health").json["llm_running"] is False
        with stub(port=port) as server:
            again = eventually(lambda: _answered(front), within=3 * PAUSE_SECONDS, every=0.1)
            assert again == chat("you said back")
            assert front.get("/health").json["llm_running"] is True
            assert front.get("/readyz").status == 200
            server.close_connections()  # whoever needs a new one may have it: the trouble is over
            assert front.ask(chat_body("and more")).status == 200


def _answered(front: Proxy) -> bytes:
    reply = front.ask(chat_body("back"))
    return reply.body if reply.status == 200 else b""


@pytest.fixture
def state_file(state_dir: Path) -> Path:
    return state_dir / "pod_state.json"


def test_a_pod_that_has_just_become_ready_is_not_locked_out(
    state_file: Path, cache_dir: Path, env: dict[str, str]
) -> None:
    port = free_port()
    here = replace(READY, base_url=f"http://127.0.0.1:{port}", ready_at=1.0)
    write(state_file, here)
    with proxy(env | settings(cache_dir, LLMPOD_STATE=str(state_file))) as front:
        for number in range(FAILURES):
            assert front.ask(chat_body(f"away {number}")).status == 502
        with stub(port=port):
            write(state_file, replace(here, ready_at=2.0))
            eventually(
                lambda: sum(line["event"] == "target" for line in front.logs()) >= 2, within=5, every=0.01
            )
            assert front.ask(chat_body("ready")).status == 200
