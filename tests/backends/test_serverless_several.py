"""Several models, each with a serverless endpoint of its own, opened, woken, paid and parked without the others."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llmpod import config as configuration
from llmpod.cli.show import status_document
from llmpod.cli.wiring import Plane, open_plane
from llmpod.model import Direction, Phase
from llmpod.secret import Secret
from llmpod.sim.launch import Simulator
from tests.backends.endpoints import MODEL, MODELS, Site, sim

__all__ = ["sim"]
NAMES = ("chat", "coder")
Planes = Callable[..., Plane]


@pytest.fixture
def ids(sim: Simulator, state_dir: Path) -> dict[str, str]:
    """Two endpoints, and the keys for them in files."""
    sim.reset()
    found = {}
    for name in NAMES:
        endpoint = sim.endpoint(model=MODEL, idle_seconds=30.0, cold_start_seconds=0.1)
        file = state_dir / f"{name}.key"
        file.write_text(endpoint["key"], encoding="utf-8")
        file.chmod(0o600)
        found[name] = endpoint["id"]
    return found


@pytest.fixture
def planes(sim: Simulator, state_dir: Path, env: dict[str, str], ids: dict[str, str]) -> Iterator[Planes]:
    """Opens the installation with these models and these changes to what stands beside them."""

    def models(name: str, section: dict[str, Any]) -> dict[str, Any]:
        own = {"endpoint_id": ids[name], "api_key_file": f"{name}.key", **section}
        return {"model": MODEL, "served_model_name": MODEL, "runpod_serverless": own}

    with ExitStack() as stack:

        def open_(*names: str, section: dict[str, Any] | None = None, **changes: Any) -> Plane:
            raw = {
                "backend": "runpod_serverless",
                "models": {name: models(name, section or {}) for name in names or NAMES},
                "runpod_api_url": sim.api_url,
                "create_grace_seconds": 0.5,
                "restart_backoff_seconds": 0,
                **changes,
            }
            config = configuration.parse(raw, path=state_dir / "pod_config.json", environ={})
            opened = open_plane(config, Secret(sim.key, "a test"), environ=env, with_proxy=False)
            return stack.enter_context(opened)

        yield open_


@pytest.fixture
def sites(sim: Simulator, state_dir: Path, planes: Planes, ids: dict[str, str]) -> dict[str, Site]:
    plane = planes()
    return {name: Site(sim, state_dir, plane, ids[name], name) for name in NAMES}


def test_each_is_opened_woken_and_parked_without_the_other(sites: dict[str, Site]) -> None:
    chat, coder = sites["chat"], sites["coder"]
    coder.order(Direction.DOWN)
    chat.until_phase(Phase.READY)
    assert (chat.limits, coder.limits) == ((0, 1), (0, 0))
    assert coder.seen["list"] == []
    coder.order(Direction.UP)
    coder.until_phase(Phase.READY)
    assert coder.record.gpu == f"endpoint {coder.id}"
    assert coder.record.base_url != chat.record.base_url
    loads = status_document(chat.plane)["models"]
    assert all("idle" in loads[name]["load"]["said"] for name in NAMES)
    chat.order(Direction.DOWN)
    chat.until_phase(Phase.STOPPED)
    assert (chat.limits, coder.limits) == ((0, 0), (0, 1))
    assert coder.record.phase is Phase.READY
    coder.order(Direction.DOWN)
    coder.until_phase(Phase.STOPPED)
    assert (chat.limits, coder.limits) == ((0, 0), (0, 0))


def test_what_sleeps_is_not_woken_by_looking_at_the_other(sites: dict[str, Site]) -> None:
    """Each is asked by its own counts, and not as a server that costs nothing to ask."""
    chat, coder = sites["chat"], sites["coder"]
    chat.until(lambda: all(site.record.phase is Phase.READY for site in sites.values()))
    chat.sleeps()
    coder.sleeps()
    before, looks = chat.calls(MODELS), [site.calls(f"{site.id}/workers") for site in (chat, coder)]
    for _ in range(3):
        chat.pass_()
    assert chat.calls(MODELS) == before
    assert [site.calls(f"{site.id}/workers") for site in (chat, coder)] == [n + 3 for n in looks], "each once"
    assert all(site.record.phase is Phase.READY for site in sites.values())
    assert (chat.seen["list"], coder.seen["list"]) == ([], [])


def test_one_that_a_person_opens_is_parked_beside_one_that_is_wanted(sites: dict[str, Site]) -> None:
    chat, coder = sites["chat"], sites["coder"]
    chat.until(lambda: all(site.record.phase is Phase.READY for site in sites.values()))
    coder.order(Direction.DOWN)
    coder.until_phase(Phase.STOPPED)
    coder.console(3)
    coder.pass_()
    assert (chat.limits, coder.limits) == ((0, 1), (0, 0))


def test_one_whose_model_is_gone_from_the_configuration_is_parked(
    sites: dict[str, Site], planes: Planes
) -> None:
    chat, coder = sites["chat"], sites["coder"]
    chat.until(lambda: all(site.record.phase is Phase.READY for site in sites.values()))
    chat.plane = planes("chat")
    chat.until(lambda: coder.limits == (0, 0))
    assert chat.limits == (0, 1)
    assert chat.record.phase is Phase.READY


def test_a_model_that_is_renamed_opens_the_endpoint_when_the_former_one_has_parked_it(
    sim: Simulator, state_dir: Path, planes: Planes, ids: dict[str, str]
) -> None:
    """They have the same one: what ends the former must not end the new."""
    chat = Site(sim, state_dir, planes("chat"), ids["chat"], "chat")
    chat.until_phase(Phase.READY)
    ids["talk"] = ids["chat"]
    (state_dir / "chat.key").rename(state_dir / "talk.key")
    talk = Site(sim, state_dir, planes("talk"), ids["talk"], "talk")
    talk.pass_()
    assert talk.limits == (0, 0)
    assert str(chat.record.phase) == "terminating"
    assert talk.record.error == "waits until chat has ended"
    sim.advance(31.0)  # its worker ends
    talk.until_phase(Phase.READY)
    assert talk.limits == (0, 1)
    assert chat.record.phase is Phase.STOPPED


def test_one_that_was_not_ours_to_park_is_left_as_it_is(
    sim: Simulator, state_dir: Path, planes: Planes, ids: dict[str, str]
) -> None:
    """Also when its model is gone and those that stay do park."""
    coder = Site(sim, state_dir, planes("coder", section={"park": False}), ids["coder"], "coder")
    coder.console(3)
    coder.until_phase(Phase.READY)
    chat = Site(sim, state_dir, planes("chat"), ids["chat"], "chat")
    chat.order(Direction.UP)
    chat.until_phase(Phase.READY)
    chat.pass_()
    assert (chat.limits, coder.limits) == ((0, 1), (0, 3))


def test_the_budget_is_that_of_all_and_parks_all(
    sites: dict[str, Site], planes: Planes, sim: Simulator
) -> None:
    chat, coder = sites["chat"], sites["coder"]
    chat.plane = coder.plane = planes(budget={"per_day_usd": 0.01})
    chat.until(lambda: all(site.record.phase is Phase.READY for site in sites.values()))
    chat.pass_()  # sees the workers and their price
    assert all((site.record.usd_per_hour or 0) > 0 for site in sites.values())
    for site in sites.values():
        site.behave(idle_seconds=1e6)

    def all_parked() -> bool:
        """Again and again, since midnight may come between, and with it another day's budget."""
        sim.advance(60.0)
        return (chat.limits, coder.limits) == ((0, 0), (0, 0))

    chat.until(all_parked)
    orders = chat.plane.store.orders()
    assert {orders[name].direction for name in NAMES} == {Direction.DOWN}
    lines = (chat.plane.store.directory / "ledger.jsonl").read_text().splitlines()
    assert {json.loads(line)["model"] for line in lines if "model" in line} >= {MODEL}


def test_of_a_group_one_is_open(sites: dict[str, Site], planes: Planes) -> None:
    chat, coder = sites["chat"], sites["coder"]
    plane = planes(groups={"one": {"members": list(NAMES)}}, start="on_request", wake_on_request=True)
    chat.plane = coder.plane = plane
    chat.order(Direction.UP)
    chat.until_phase(Phase.READY)
    coder.order(Direction.UP)
    for _ in range(3):
        coder.pass_()
    assert (chat.limits, coder.limits) == ((0, 1), (0, 0))
    chat.order(Direction.DOWN)
    coder.until_phase(Phase.READY)
    assert (chat.limits, coder.limits) == ((0, 0), (0, 1))
