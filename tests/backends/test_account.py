"""What RunPod says of the account's money, against the simulator and against servers that misbehave."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmpod.backends.runpod_account import Balance, balance, billing, charged
from llmpod.backends.runpod_api import RunpodApi
from llmpod.config import PodConfig
from llmpod.errors import ProviderError, ProviderUnavailable
from llmpod.secret import Secret
from llmpod.sim.launch import Simulator
from tests.backends.stubborn import http, stubborn
from tests.sim.runpod.api import Api
from tests.support.install import FAST
from tests.support.net import free_port

KEY = Secret("rpa_CANARY0123456789", "a test")


def settings(graphql_url: str) -> PodConfig:
    return PodConfig(model="org/m", runpod_graphql_url=graphql_url)


@pytest.fixture(scope="module")
def _simulator() -> Iterator[Simulator]:
    with Simulator.start(pods="inline", behavior={**FAST, "balance_usd": 100.0}) as simulator:
        yield simulator


@pytest.fixture
def account(_simulator: Simulator) -> Simulator:
    """An account of 100 USD, as new."""
    _simulator.reset()
    return _simulator


@pytest.fixture
def pod(account: Simulator) -> str:
    api = Api(account)
    made = str(api.create()["id"])
    api.close()
    return made


@pytest.fixture
def api(account: Simulator) -> Iterator[RunpodApi]:
    connection = RunpodApi(account.api_url, Secret(account.key, "a test"))
    yield connection
    connection.close()


def ask(simulator: Simulator, key: str = "") -> Balance:
    return balance(settings(simulator.api_url + "/graphql"), Secret(key or simulator.key, "a test"))


# --- the balance
def test_balance_rate_and_limit(account: Simulator, pod: str) -> None:
    rate = account.alive()[0]["usd_per_hour"]
    account.advance(3600)
    found = ask(account)
    assert found.usd == pytest.approx(100 - rate, abs=0.01)
    assert (found.usd_per_hour, found.spend_limit, found.why) == (rate, 80.0, "")
    assert found.hours_left == pytest.approx((100 - rate) / rate, abs=0.1)


def test_spending_beside_the_pods(account: Simulator, pod: str) -> None:
    rate = account.alive()[0]["usd_per_hour"]
    account.set(other_usd_per_hour=2.5)
    assert ask(account).usd_per_hour == pytest.approx(rate + 2.5)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("errors", "Something went wrong"),
        ("400", "answered 400"),
        ("401", "refuses the key"),
        ("403", "refuses the key"),
        ("410", "retired its GraphQL"),
        ("429", "try again"),
        ("500", "answered 500"),
        ("html", "502 with something that is not JSON"),
        ("garbage", "not JSON"),
        ("dropped", "does not answer"),
    ],
)
def test_every_failure_is_unknown_with_a_reason(account: Simulator, fault: str, why: str) -> None:
    account.fault("graphql", fault)
    found = ask(account)
    assert (found.usd, found.usd_per_hour, found.spend_limit, found.hours_left) == (None, None, None, None)
    assert why in found.why
    assert ask(account).usd == 100.0, "the next call is fine again"


def test_retired_for_good(account: Simulator) -> None:
    account.set(graphql_retired=True)
    assert "retired" in ask(account).why
    assert ask(account).usd is None


def test_a_wrong_key(account: Simulator) -> None:
    found = ask(account, "rpa_SOMEBODYELSES")
    assert (found.usd, found.why) == (None, "RunPod's GraphQL refuses the key")


def test_nobody_listens() -> None:
    found = balance(settings(f"http://127.0.0.1:{free_port()}/graphql"), KEY)
    assert (found.usd, found.why) == (None, "RunPod's GraphQL does not answer (ConnectionError)")


def test_a_server_that_hangs_takes_no_longer_than_it_may(account: Simulator) -> None:
    account.fault("graphql", "hang")
    began = time.monotonic()
    found = balance(settings(account.api_url + "/graphql"), Secret(account.key, "a test"), within=0.5)
    assert time.monotonic() - began < 3
    assert found.usd is None
    assert found.why


def test_an_answer_that_drips_takes_no_longer_than_it_may() -> None:
    """One byte at a time, so that no time-out of a socket ever strikes."""
    with stubborn(http(200, b'{"data": null}'), drip=0.1) as server:
        began = time.monotonic()
        found = balance(settings(server.url), KEY, within=0.5)
        assert time.monotonic() - began < 3
    assert found == Balance(why="RunPod's GraphQL did not answer within 0.5 s")


@pytest.mark.parametrize(
    ("body", "usd", "why"),
    [
        (b'{"data": {"myself": null}}', None, "does not know this key's account"),
        (b'{"data": {"myself": {"clientBalance": 12.5}}}', 12.5, "does not say all"),
        (b'{"data": {"myself": {"clientBalance": 0}}}', 0.0, "does not say all"),
        (b'{"data": {"myself": {"clientBalance": true}}}', None, "does not say all"),
        (
            b'{"data": {"myself": {"clientBalance": "12.5", "currentSpendPerHr": true}}}',
            None,
            "does not say all",
        ),
        (b'{"data": {"myself": {"clientBalance": NaN}}}', None, "does not say all"),
        (b'{"data": {"myself": []}}', None, "does not know"),
        (b'{"data": 7, "errors": "x"}', None, "does not know"),
        (b'{"errors": [{"message": "partly"}], "data": {"myself": {"clientBalance": 3}}}', 3.0, "partly"),
        (b"[]", None, "not JSON"),
        (b"", None, "not JSON"),
        (b"[" * 60_000, None, "not JSON"),
        (b'{"a": "' + b"x" * 200_000 + b'"}', None, "not JSON"),
    ],
)
def test_odd_answers(body: bytes, usd: float | None, why: str) -> None:
    with stubborn(http(200, body)) as server:
        found = balance(settings(server.url), KEY)
    assert found.usd == usd
    assert why in found.why


def test_a_redirect_does_not_carry_the_key_away() -> None:
    with stubborn(http(200, b"{}")) as elsewhere:
        away = http(302, b"", "text/html", f"Location: {elsewhere.url}")
        with stubborn(away) as server:
            assert balance(settings(server.url), KEY).usd is None
        assert elsewhere.asked == []


def test_the_key_is_in_one_header_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the address, not in the body; and no .netrc of the user replaces it."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with stubborn(http(200, b"{}")) as server:
        balance(settings(server.url), KEY)
    [request] = server.asked
    lines = [line for line in request.splitlines() if KEY.reveal().encode() in line]
    assert lines == [b"Authorization: Bearer " + KEY.reveal().encode()]
    assert b"\r\nUser-Agent: llmpod/" in request


@pytest.mark.parametrize(("usd", "rate", "hours"), [(10.0, 0.0, None), (-5.0, 1.0, 0.0), (None, 1.0, None)])
def test_hours_left(usd: float | None, rate: float, hours: float | None) -> None:
    assert Balance(usd, rate).hours_left == hours


# --- the bill
def now(simulator: Simulator) -> float:
    return float(simulator.state()["now"])


def test_the_bill_by_pod_and_hour(account: Simulator, pod: str, api: RunpodApi) -> None:
    account.advance(3 * 3600)
    charges = billing(api, now(account) - 86400, now(account))
    assert len(charges) in (3, 4)
    assert {c.at % 3600 for c in charges} == {0.0}
    spent = account.bill()["pods"][pod]
    assert charged(charges) == {pod: pytest.approx(spent, rel=0.01)}
    last = max(c.at for c in charges)
    assert charged(charges, last)[pod] < spent / 2
    assert charged(charges, last + 1) == {}


def test_an_empty_bill_is_nothing_and_not_unknown(account: Simulator, api: RunpodApi) -> None:
    assert billing(api, now(account) - 3600, now(account)) == ()


def test_a_bill_that_lags(account: Simulator, pod: str, api: RunpodApi) -> None:
    account.set(billing_lag_seconds=7200)
    account.advance(2 * 3600)
    charges = billing(api, now(account) - 86400, now(account))
    assert sum(charged(charges).values()) < account.bill()["total_usd"] / 100
    account.advance(2 * 3600)
    assert charged(billing(api, now(account) - 86400, now(account)))[pod] > 0


@pytest.mark.parametrize("fault", ["500", "html", "401", "410", "dropped"])
def test_a_bill_that_does_not_come(account: Simulator, api: RunpodApi, fault: str) -> None:
    account.fault("billing", fault, times=2)
    with pytest.raises(ProviderError):
        billing(api, now(account) - 3600, now(account))


def record(**changes: Any) -> str:
    fields = {"startTime": "2026-11-21T10:00:00Z", "podId": "p1", "totalAmount": 0.5, **changes}
    return str({k: v for k, v in fields.items() if v is not ...}).replace("'", '"').replace("None", "null")


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        '{"records": null}',
        '{"records": {}}',
        f'{{"records": [{record(totalAmount=...)}]}}',
        f'{{"records": [{record(totalAmount=None)}]}}',
        f'{{"records": [{record(startTime="soon")}]}}',
        f'{{"records": [{record(startTime=5)}]}}',
        f'{{"records": [{record()}, 7]}}',
    ],
)
def test_a_bill_that_cannot_be_read_is_unknown(body: str) -> None:
    with stubborn(http(200, body.encode())) as server:
        api = RunpodApi(server.url.removesuffix("/graphql"), KEY)
        with pytest.raises(ProviderUnavailable, match="cannot be read"):
            billing(api, 0, 3600)
        api.close()


def test_a_bill_as_documented() -> None:
    with stubborn(http(200, f'{{"records": [{record()}, {record(podId="p2")}]}}'.encode())) as server:
        api = RunpodApi(server.url.removesuffix("/graphql"), KEY)
        charges = billing(api, 0, 3600)
        api.close()
    at = datetime(2026, 11, 21, 10, tzinfo=UTC).timestamp()
    assert [(c.pod, c.at, c.usd) for c in charges] == [("p1", at, 0.5), ("p2", at, 0.5)]
    [request] = server.asked
    line = request.splitlines()[0].decode()
    assert "startTime=1970-01-01T00%3A00%3A00.000Z" in line
    assert "endTime=1970-01-01T01%3A00%3A00.000Z" in line
    assert "bucketSize=hour" in line
