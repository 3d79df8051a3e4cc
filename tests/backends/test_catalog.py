"""From a configuration to the right pod, and what a person is told before it: manage_pod.py against the simulator."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmpod.sim.launch import Simulator
from tests.support.forks import Forks
from tests.support.install import FAST, Install

AWAY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def _simulator() -> Iterator[Simulator]:
    with Simulator.start(pods="inline", behavior=FAST) as simulator:
        yield simulator


@pytest.fixture
def install(_simulator: Simulator, state_dir: Path, env: dict[str, str], forks: Forks) -> Install:
    """An installation that wants a model of seven billion parameters and leaves the GPU to us."""
    _simulator.reset()
    made = Install(state_dir, _simulator, env, start=forks.run)
    made.write(model="org/seven", gpu_type_id="auto", max_model_len=8192)
    return made


def posts(install: Install) -> int:
    """How often a pod was asked for."""
    made = [call for call in install.sim.requests() if (call["method"], call["path"]) == ("POST", "/v2/pods")]
    return len(made)


def catalogs(install: Install) -> int:
    return len([call for call in install.sim.requests() if call["path"] == "/v2/catalog/gpus"])


def only_pod(install: Install) -> dict[str, Any]:
    """The one pod that exists."""
    (pod,) = install.sim.alive()
    return pod


def words(pod: dict[str, Any]) -> list[str]:
    """All words of its command."""
    command: list[str] = pod["config"]["cmd"]
    return command


# --- what is bought
def test_auto_buys_the_cheapest_gpu_that_holds_the_model(install: Install) -> None:
    install.manage().expect()
    pod = only_pod(install)
    assert (pod["gpu"], pod["gpu_count"]) == ("NVIDIA A40", 1)
    assert pod["config"]["disk"] == 55
    said = words(pod)
    assert said[said.index("--max-num-batched-tokens") + 1] == "2048"
    assert "--tensor-parallel-size" not in said


def test_auto_buys_several_when_one_is_too_small_and_vllm_is_told(install: Install) -> None:
    install.write(model="org/seventy")
    install.manage().expect()
    pod = only_pod(install)
    assert (pod["gpu"], pod["gpu_count"]) == ("NVIDIA A40", 4)
    said = words(pod)
    assert said[said.index("--tensor-parallel-size") + 1] == "4"


def test_the_cap_holds(install: Install) -> None:
    install.write(max_hourly_cost=0.4)
    said = install.manage().expect(75).out
    assert "over the cap of $0.40/h" in said
    assert posts(install) == 0


def test_what_no_machine_holds_is_a_mistake_of_the_configuration(install: Install) -> None:
    install.write(model="org/colossus")
    said = install.manage().expect(78).out
    assert "No machine" in said
    assert "max_model_len" in said
    assert posts(install) == 0


def test_what_could_not_be_had_is_not_asked_for_again_at_once(install: Install) -> None:
    install.sim.set(no_capacity=["NVIDIA A40"], catalog_lies=True)
    install.manage().expect()
    assert only_pod(install)["gpu"] == "NVIDIA L4"
    assert posts(install) == 2
    install.manage("down").expect()
    install.manage("up").expect()
    assert only_pod(install)["gpu"] == "NVIDIA L4"
    assert posts(install) == 3
    assert "no capacity" in install.manage("plan").expect().out


def test_stock_is_asked_in_the_configured_places_only(install: Install) -> None:
    install.write(data_center_ids=["US-TX-3"])
    install.sim.set(capacity={"NVIDIA A40/SECURE/US-TX-3": 0})
    install.manage().expect()
    pod = only_pod(install)
    assert (pod["gpu"], pod["data_center"]) == ("NVIDIA L4", "US-TX-3")
    assert posts(install) == 1


def test_a_catalog_of_this_minute_serves_the_next_create(install: Install) -> None:
    install.manage().expect()
    install.manage("down").expect()
    before = catalogs(install)
    assert before == 1
    install.manage("up").expect()
    assert catalogs(install) == before
    assert len(install.sim.alive()) == 1


# --- when a source is away
def test_by_price_nothing_is_bought_without_prices(install: Install) -> None:
    install.sim.fault("catalog", "503", times=10)
    said = install.manage().expect(75).out
    assert "prices" in said
    assert posts(install) == 0


@pytest.mark.parametrize("limit", [{"max_hourly_cost": 9}, {"budget": {"per_day_usd": 99}}])
def test_a_limit_in_money_needs_prices_also_for_a_named_gpu(
    install: Install, limit: dict[str, object]
) -> None:
    install.write(gpu_type_id="NVIDIA L4", **limit)
    install.sim.fault("catalog", "503", times=10)
    install.manage().expect(75)
    assert posts(install) == 0


def test_a_named_gpu_needs_neither_catalog_nor_hub(install: Install) -> None:
    install.write(gpu_type_id="NVIDIA L4", hub_url=AWAY)
    install.sim.fault("catalog", "503", times=10)
    install.manage().expect()
    pod = only_pod(install)
    assert pod["gpu"] == "NVIDIA L4"
    assert pod["config"]["disk"] == 100


def test_auto_without_the_hub_says_how_to_go_on(install: Install) -> None:
    install.write(hub_url=AWAY)
    assert "gpu_type_id" in install.manage().expect(75).out
    assert posts(install) == 0


def test_auto_without_the_hub_knows_the_best_known_models(install: Install) -> None:
    install.write(model="Qwen/Qwen2.5-7B-Instruct", hub_url=AWAY)
    said = install.manage("plan").expect().out
    assert "approximate" in said
    install.manage().expect()
    assert only_pod(install)["gpu"] == "NVIDIA A40"


@pytest.mark.parametrize(
    ("model", "code", "hint"), [("org/gated", 77, "HF_TOKEN"), ("org/sevn", 78, "org/seven")]
)
@pytest.mark.parametrize("gpu", ["auto", "NVIDIA L4"])
def test_no_pod_is_paid_for_a_model_that_cannot_be_had(  # also not on a named GPU
    install: Install, gpu: str, model: str, code: int, hint: str
) -> None:
    install.write(model=model, gpu_type_id=gpu)
    assert hint in install.manage().expect(code).out
    assert posts(install) == 0


# --- what is told
def test_plan_tells_needs_prices_reasons_disk_and_start(install: Install) -> None:
    said = install.manage("plan").expect().out
    assert "needs 19.3 GiB" in said
    assert "KV 4.0 (4 x 8192 tokens)" in said
    assert "44.3 x 0.92 = 40.8" in said
    assert "NVIDIA A40" in said
    assert "$0.44" in said
    assert "Disk 55 GB" in said
    assert "estimate: 15.2 GB at an assumed 200 MB/s" in said
    assert "CUDA 13.0" in said
    assert posts(install) == 0
    kept = {path.name for path in install.directory.rglob("*") if path.is_file()}
    assert "catalog.json" not in kept


def test_plan_shows_the_nearest_misses_and_verbose_all(install: Install) -> None:
    install.write(model="org/seventy", max_hourly_cost=2)
    short = install.manage("plan").expect().out
    assert "over the cap of $2.00/h" in short
    assert "more (--verbose shows all)" in short
    long = install.manage("plan", "--verbose").expect().out
    assert long.count("over the cap") > short.count("over the cap")
    assert "more (--verbose" not in long


def test_catalog_lists_everything_and_says_how_old_it_is(install: Install) -> None:
    said = install.manage("catalog").expect().out
    assert "NVIDIA H200" in said
    assert "EU-RO-1" in said
    assert "0 s old" in said
    assert "15.2 GB of weights" in said
    install.write(runpod_api_url=AWAY)
    said = install.manage("catalog").expect().out
    assert "out of reach" in said
    assert "old" in said
    install.directory.joinpath(".llmpod/pod_state/catalog.json").write_text("[]")
    assert "built-in" in install.manage("catalog").expect().out


def test_model_store_id_is_our_alias_and_is_said_to_be(install: Install) -> None:
    install.write(model=None, modelStoreId="org/seven@v1")
    said = install.manage("--refresh-catalog").expect().out
    assert "stands for the Hugging Face id org/seven@v1" in said
    assert "RunPod has no model store for pods" in said
    install.write(modelStoreId="org/sevn")
    assert "org/seven" in install.manage("--refresh-catalog").expect(78).err
    install.write(hub_url=AWAY)
    assert "Not checked" in install.manage("--refresh-catalog").expect().out


def test_the_key_is_what_is_wrong_when_runpod_says_so(install: Install) -> None:
    install.sim.set(key_scope="none")
    install.manage("catalog").expect(77)
