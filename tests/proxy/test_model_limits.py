"""`rate_limit` of a model: it binds its own callers, whichever way they come in, and takes nothing else from them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmpod.cli.proxyenv import proxy_environ
from llmpod.config import CallerKey, Config, ProxySettings, Scope, parse
from llmpod.config.rates import Per, RateLimit
from llmpod.errors import ConfigError
from llmpod.lifecycle.store import Store
from llmpod.observe import open_log
from llmpod.proxy.accounts import Accounts
from llmpod.proxy.limits import Limiter, RateLimited
from tests.proxy.front import Reply, settings
from tests.proxy.test_edge_rates import Clock, ask
from tests.proxy.test_reload import handed, told, write


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts() -> Iterator[Accounts]:
    log = open_log("ERROR")
    yield Accounts(None, log)
    log.close()


def limiter(accounts: Accounts, clock: Clock, **more: Any) -> Limiter:
    return Limiter(ProxySettings(**more), accounts, monotonic=clock, clock=clock)


def refused(limits: Limiter, model: str, client: str = "10.0.0.1") -> float | None:
    """For how long; None: served."""
    question = ask(client=client)
    if (error := limits.refusal(question)) is None:
        try:
            limits.admit(question, model, None)
        except RateLimited as e:
            error = e
    return error.retry_after if error else None


def test_each_caller_has_the_models_own_limit_and_the_wait_is_right(accounts: Accounts, clock: Clock) -> None:
    limits = limiter(accounts, clock, model_limits={"coder": RateLimit(requests_per_minute=2)})
    assert [refused(limits, "coder") for _ in range(3)] == [None, None, 30.0]
    assert refused(limits, "coder", "10.0.0.2") is None
    assert [refused(limits, "chat") for _ in range(9)] == [None] * 9
    clock.now += 29.9
    assert refused(limits, "coder") is not None
    clock.now += 0.1
    assert refused(limits, "coder") is None


def test_a_refusal_by_the_model_takes_nothing_of_other_limits(accounts: Accounts, clock: Clock) -> None:
    own = RateLimit(requests_per_minute=1, per=Per.EVERYBODY)
    limits = limiter(accounts, clock, requests_per_minute=3, model_limits={"coder": own})
    assert refused(limits, "coder") is None
    assert [refused(limits, "coder") for _ in range(5)] == [60.0] * 5
    assert refused(limits, "coder", "10.0.0.2") == 60.0, "it is everybody's"
    assert [refused(limits, "chat") for _ in range(3)] == [None, None, 20.0]


def test_a_refusal_by_the_model_is_no_request_of_the_keys_day(accounts: Accounts, clock: Clock) -> None:
    limits = limiter(accounts, clock, model_limits={"coder": RateLimit(requests_per_minute=1)})
    question = ask(key=CallerKey("1", "ann", "0" * 64, tuple(Scope), created=0.0, requests_per_day=3))
    assert limits.refusal(question) is None
    limits.admit(question, "coder", None)
    for _ in range(5):
        assert limits.refusal(question) is None
        with pytest.raises(RateLimited):
            limits.admit(question, "coder", None)
    assert [limits.refusal(question) is None for _ in range(3)] == [True, True, False]


def test_tokens_are_taken_of_the_model_that_was_asked(accounts: Accounts, clock: Clock) -> None:
    limits = limiter(accounts, clock, model_limits={"coder": RateLimit(tokens_per_minute=60)})
    question = ask()
    meter = limits.meter(question)
    assert meter is not None
    limits.admit(question, "coder", meter)
    meter.see(b'{"usage": {"total_tokens": 90, "prompt_tokens": 40, "completion_tokens": 50}}')
    limits.used(question, meter, counts=True)
    assert refused(limits, "coder") == pytest.approx(31.0)
    assert refused(limits, "chat") is None
    limits.adopt(ProxySettings(model_limits={"coder": RateLimit(tokens_per_minute=61)}))
    assert refused(limits, "coder") is None, "other limits begin anew"


def configured(limit: object) -> Config:
    chat = {"model": "org/a", "process": {"command": ["serve"]}}
    coder = {"model": "org/b", "process": {"command": ["serve"]}, "rate_limit": limit}
    document = {"backend": "process", "models": {"chat": chat, "coder": coder}}
    return parse(document, path=Path("/nowhere/c.json"), environ={})


def test_it_is_a_key_of_a_model_and_reaches_the_proxy(tmp_path: Path) -> None:
    environ = proxy_environ(configured({"requests_per_minute": 5}), {}, Store(tmp_path / "pod_state.json"))
    said = json.loads(environ["LLMPOD_MODEL_LIMITS"])
    assert said == {"coder": {"requests_per_minute": 5, "per": "caller"}}
    with pytest.raises(ConfigError, match=r"models\.coder\.rate_limit"):
        configured({"requests_per_minute": 0})


def test_it_counts_by_name_and_by_address_and_changes_while_the_proxy_runs(
    tmp_path: Path, env: dict[str, str]
) -> None:
    """Where no model runs each request is a 503, unless it is one too many."""
    file = tmp_path / "settings.json"
    state = Store(tmp_path / "pod_state.json")
    base = settings(tmp_path / "cache", LLMPOD_STATE=str(tmp_path / "pod_state.json"))
    limited = proxy_environ(configured({"requests_per_minute": 2}), {}, state)
    base["LLMPOD_ROUTES"] = limited["LLMPOD_ROUTES"]
    by_name, by_address = "/v1/chat/completions", "/coder/v1/chat/completions"
    with handed(file, env, {**base, "LLMPOD_MODEL_LIMITS": limited["LLMPOD_MODEL_LIMITS"]}) as front:

        def post(path: str, model: str = "org/b") -> Reply:
            return front.ask(json.dumps({"model": model, "messages": []}).encode(), path=path)

        replies = [post(path) for path in (by_name, by_address, by_address, by_name)]
        assert [reply.status for reply in replies] == [503, 503, 429, 429]
        assert "requests a minute for coder" in replies[2].json["error"]["message"]
        assert 1 <= int(replies[2].headers["retry-after"]) <= 30
        assert post(by_name, "org/a").status == 503
        with front.client() as client:
            client.send("PUT", by_address, b'{"model": "org/b"}')
            assert client.reply("PUT").status == 429, "by another method too"
        write(file, {**base, "LLMPOD_MODEL_LIMITS": '{"coder": {"requests_per_minute": 900}}'})
        assert told(front, "config_read")["changed"] == "model_limits"
        assert post(by_address).status == 503
