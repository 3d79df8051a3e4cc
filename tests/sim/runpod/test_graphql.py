"""The simulator's GraphQL, as any client would ask it."""

from typing import Any

import pytest
import requests

from llmpod.sim.launch import Simulator
from tests.sim.runpod.api import AGENT, Api

FIELDS = "clientBalance currentSpendPerHr spendLimit"


def ask(api: Api, query: str = f"{{ myself {{ {FIELDS} }} }}") -> requests.Response:
    return api.call("POST", "/graphql", json={"query": query})


def myself(answer: requests.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]["myself"]


def test_money_runs_out_as_the_clock_goes_on(api: Api, fast: Simulator) -> None:
    fast.set(balance_usd=10.0, spend_limit_usd=3.0)
    api.create()
    rate = fast.alive()[0]["usd_per_hour"]
    fast.advance(3600)
    found = myself(ask(api))
    assert found == {
        "clientBalance": pytest.approx(10 - rate, abs=0.01),
        "currentSpendPerHr": rate,
        "spendLimit": 3.0,
    }


def test_a_stopped_pod_costs_nothing_now(api: Api, fast: Simulator) -> None:
    pod = api.create()["id"]
    api.call("POST", f"/v2/pods/{pod}/action", json={"action": "stop"})
    assert myself(ask(api))["currentSpendPerHr"] == 0


def test_only_what_was_asked_and_an_endless_account_does_not_say(api: Api) -> None:
    assert myself(ask(api, "query Q { myself { clientBalance, id } }")) == {
        "clientBalance": None,
        "id": "user_simulated",
    }


def test_without_a_key_nobody(fast: Simulator) -> None:
    answer = requests.post(
        fast.api_url + "/graphql",
        json={"query": "{myself{id}}"},
        headers={"User-Agent": AGENT},
        timeout=10,
    )
    assert (answer.status_code, answer.json()) == (200, {"data": {"myself": None}})


def test_a_wrong_key(fast: Simulator) -> None:
    wrong = requests.post(
        fast.api_url + "/graphql",
        json={"query": "{myself{id}}"},
        headers={"Authorization": "Bearer rpa_WRONG", "User-Agent": AGENT},
        timeout=10,
    )
    assert wrong.status_code == 401


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{ myself { shoeSize } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ __schema { types { name } } }", "INTROSPECTION_DISABLED"),
        ("{ myself { id ", "GRAPHQL_PARSE_FAILED"),
    ],
)
def test_a_wrong_query(api: Api, query: str, code: str) -> None:
    answer = ask(api, query)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["extensions"]["code"] == code


def test_no_query_at_all(api: Api) -> None:
    for content in (b"", b"[]", b"{}"):
        assert api.call("POST", "/graphql", data=content).status_code == 400


def test_errors_with_status_200_and_then_none(api: Api, fast: Simulator) -> None:
    fast.fault("graphql", "errors")
    first = ask(api)
    assert (first.status_code, first.json()["data"]) == (200, None)
    assert first.json()["errors"]
    assert myself(ask(api))


def test_retired(api: Api, fast: Simulator) -> None:
    fast.set(graphql_retired=True)
    assert ask(api).status_code == 410


def test_a_bill_may_lag(api: Api, fast: Simulator) -> None:
    fast.set(billing_lag_seconds=3600.0)
    api.create()
    rate = fast.alive()[0]["usd_per_hour"]
    fast.advance(1800)
    assert api.call("GET", "/v2/billing/pods").json()["records"] == []
    fast.advance(3600)
    billed = api.call("GET", "/v2/billing/pods").json()[
        "records"
    ]  # one a day, and midnight may have been among it
    assert sum(record["totalAmount"] for record in billed) == pytest.approx(0.5 * rate, rel=0.01)
