"""`cost` when nobody answers, or nonsense: what is known stands, the rest is unknown and never 0."""

import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.lifecycle.entries import HOUR, machine
from tests.manager.costs import (
    cost,
    ledger,
    snapshot,
    told,
    without_key,
    write_past,
)
from tests.support.install import Install
from tests.support.process import run


@pytest.fixture
def install(install: Install) -> Install:
    install.write(runpod_graphql_url=install.sim.api_url + "/graphql")
    return install


@pytest.fixture
def noon() -> float:
    """Noon of yesterday: over, whenever the tests run."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - timedelta(hours=12)).timestamp()


def test_without_a_key_the_ledger_stands_alone(install: Install, noon: float) -> None:
    write_past(install, (machine("p1", 2.0, created=noon), noon + HOUR))
    write_past(install, (machine("p2", None, created=noon), noon + 3 * HOUR), model="org/odd")
    calls = len(install.sim.requests())
    found = without_key(install)
    assert len(install.sim.requests()) == calls
    [yesterday] = [day for day in found["days"] if day["usd"]]
    assert (yesterday["usd"], yesterday["unknown_hours"]) == (pytest.approx(2.0), pytest.approx(3.0))
    assert yesterday["date"] == datetime.fromtimestamp(noon, UTC).date().isoformat()
    for part in ("account", "billed", "unexplained"):
        assert "no RunPod API key" in found[part]["why"]
    assert (found["account"]["balance_usd"], found["account"]["hours_left"]) == (None, None)
    assert (found["billed"]["usd"], found["billed"]["difference_usd"]) == (None, None)
    assert (found["unexplained"]["foreign"], found["unexplained"]["stray_usd_per_hour"]) == (None, None)
    text = run(install.argv("cost"), env=install.env).expect().out
    assert "balance unknown" in text
    assert "$0.00 left" not in text
    assert re.search(r"\$2\.00 \? +#{40}", text), text


@pytest.mark.parametrize("fault", ["500", "401", "dropped"])
def test_whoever_does_not_answer_is_unknown_and_the_rest_stands(install: Install, fault: str) -> None:
    write_past(
        install,
        (machine("p1", 2.0, created=datetime.now(UTC).timestamp() - 60), datetime.now(UTC).timestamp()),
    )
    install.sim.set(balance_usd=7.0)
    for operation in ("list", "graphql", "billing"):
        install.sim.fault(operation, fault, times=2)
    away = cost(install)
    assert away["month"]["usd"] > 0
    assert away["account"]["balance_usd"] is None
    assert away["account"]["why"]
    assert (away["billed"]["usd"], away["unexplained"]["foreign"]) == (None, None)
    assert away["billed"]["why"] == away["unexplained"]["why"] != ""
    install.sim.reset()
    install.sim.set(balance_usd=7.0)
    install.sim.fault("billing", fault, times=2)
    no_bill = cost(install)
    assert (no_bill["billed"]["usd"], no_bill["unexplained"]["foreign"]) == (None, [])
    assert no_bill["account"]["balance_usd"] == 7.0


def test_no_proxy_and_a_stranger_in_its_place(install: Install) -> None:
    assert cost(install)["cache"]["answers"] is None
    assert "the proxy does not answer" in cost(install)["cache"]["why"]
    assert "unknown (the proxy does not answer" in told(install).out
    install.write(proxy_port=int(install.sim.api_url.rpartition(":")[2]))
    assert cost(install)["cache"]["why"].startswith("the proxy's /metrics answers 4")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """It accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_silent_stranger_does_not_hold_it_up(install: Install, silent_port: int) -> None:
    install.write(proxy_port=silent_port)
    assert "does not answer" in cost(install)["cache"]["why"]


def test_an_unreadable_ledger_says_what_to_do(install: Install) -> None:
    ledger(install).path.mkdir()
    done = install.manage("cost").expect(78)
    assert "Cannot read the ledger" in done.err
    assert "move it away" in done.err


def test_an_unreadable_state_and_a_damaged_line_are_told(install: Install, noon: float) -> None:
    write_past(install, (machine("p1", 2.0, created=noon), noon + HOUR))
    with ledger(install).path.open("a") as file:
        file.write('{"v": 1, "at')
    (install.directory / "pod_state.json").write_text("{")
    found = cost(install)
    assert found["ledger"] == {"machines": 1, "damaged_lines": 1}
    assert "pod_state.json" in found["problems"][0]
    assert sum(day["usd"] for day in found["days"]) == pytest.approx(2.0)
    assert "1 damaged line(s) of the ledger are not counted." in told(install).out


def test_it_changes_nothing_and_never_shows_the_key(install: Install) -> None:
    install.passes_until("ready")
    before, calls = snapshot(install.directory), len(install.sim.requests())
    done = [told(install), install.manage("cost", "--json", "--verbose").expect()]
    assert snapshot(install.directory) == before
    made = install.sim.requests()[calls:]
    assert {(call["method"], call["path"]) for call in made} == {
        ("POST", "/graphql"),
        ("GET", "/v2/pods"),
        ("GET", "/v2/billing/pods"),
    }
    assert len(made) == 6
    assert all(install.sim.key not in one.out + one.err for one in done)


def test_a_malformed_key_is_unknown_and_not_shown(install: Install) -> None:
    found = cost(install, RUNPOD_API_KEY="two words secret")
    assert "not a RunPod API key" in found["account"]["why"]
    assert "secret" not in json.dumps(found)
