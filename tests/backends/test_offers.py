"""Which machines are tried, in which order, and why not the others: on the simulator's catalog, with no I/O at all."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpod.backends.runpod_catalog import BUILT_IN, STOCK_ORDER
from llmpod.backends.runpod_offers import needed_counts, offers, refusal_key
from llmpod.model import Offer
from llmpod.sim import catalog as simulated
from tests.backends.market import NOW, SEVEN, SEVENTY, catalog, choose, configured, gpu, names, wants, why

COLOSSUS = replace(SEVENTY, weights_bytes=4 * 10**12)


# --- auto
def test_auto_takes_the_cheapest_machine_that_holds_the_model() -> None:
    found = choose(configured()).offers
    prices = [offer.usd_per_hour or 0 for offer in found]
    assert prices == sorted(prices)
    assert found[0] == Offer("NVIDIA A40", 1, 0.44, "HIGH", 48, found[0].note, "NVIDIA A40|1|SECURE|*")
    assert "of 40.8 GiB" in found[0].note  # 44.34 x 0.92


def test_auto_takes_as_few_gpus_of_a_type_as_hold_it() -> None:
    choice = choose(configured(), shape=SEVENTY)
    counts = {offer.gpu: offer.count for offer in choice.offers}
    assert counts["NVIDIA B200"] == 1
    assert counts["NVIDIA H100 80GB HBM3"] == counts["NVIDIA H200"] == 2
    assert counts["NVIDIA A40"] == 4
    assert counts["NVIDIA L4"] == 8
    assert choice.offers[0].gpu == "NVIDIA A40"
    assert choice.offers[0].usd_per_hour == pytest.approx(4 * 0.44)
    assert choice.offers[0].vram_gb == 4 * 48


def test_a_fixed_count_is_kept() -> None:
    assert {offer.count for offer in choose(configured(gpu_count=2)).offers} == {2}
    tensor = configured(vllm_args=["--tensor-parallel-size", "4"])
    assert {offer.count for offer in choose(tensor).offers} == {4}


def test_never_more_gpus_than_a_pod_can_have() -> None:
    few = gpu("NVIDIA L4", most={"SECURE": 4})
    choice = choose(configured(), catalog(few), shape=SEVENTY)
    assert "NVIDIA L4" not in names(choice.offers)
    assert "too small by" in why(choice, "NVIDIA L4")
    none = gpu("NVIDIA L4", most={"SECURE": 0}, usd_per_hour={})
    assert "not sold on SECURE" in why(choose(configured(), catalog(none)), "NVIDIA L4")


def test_what_is_too_small_says_by_how_much_and_the_nearest_come_first() -> None:
    choice = choose(configured(), shape=COLOSSUS)
    assert choice.offers == ()
    small = [offer for offer in choice.rejected if "too small by" in offer.note]
    missing = [float(offer.note.split("by ")[1].split(" ")[0]) for offer in small]
    assert missing == sorted(missing)
    assert len(missing) > 5


def test_numbers_that_a_gpu_cannot_compute_with() -> None:
    choice = choose(configured(), shape=replace(SEVEN, quantization="fp8"))
    assert "compute capability is 8.6, fp8 wants 8.9" in why(choice, "NVIDIA A40")
    assert choice.offers[0].gpu == "NVIDIA L4"


def test_other_makers_are_not_taken() -> None:
    foreign = gpu("NVIDIA H200", manufacturer="AMD")
    assert "CUDA" in why(choose(configured(), catalog(foreign)), "NVIDIA H200")


def test_nothing_holds_it_is_told_from_nothing_is_to_be_had() -> None:
    assert choose(configured(), shape=COLOSSUS).hopeless
    sold_out = catalog(*(gpu(name, words={"1": {"*": "NONE"}}) for name in simulated.GPUS))
    empty = choose(configured(), sold_out)
    assert empty.offers == ()
    assert not empty.hopeless
    assert not choose(configured(max_hourly_cost=0.01)).hopeless


# --- stock
def test_no_stock_is_not_taken_by_auto_and_goes_behind_in_a_list() -> None:
    gone = catalog(gpu("NVIDIA A40", words={"1": {"*": "NONE"}}))
    auto = choose(configured(), gone)
    assert auto.offers[0].gpu == "NVIDIA L4"
    assert why(auto, "NVIDIA A40") == "no stock"
    listed = configured(gpu_type_id=["NVIDIA A40", "NVIDIA H200", "NVIDIA L4"])
    assert names(choose(listed, gone).offers) == ["NVIDIA H200", "NVIDIA L4", "NVIDIA A40"]
    assert "no stock" in choose(listed, gone).offers[-1].note


def test_stock_elsewhere_does_not_count() -> None:
    here = configured(data_center_ids=["US-TX-3"])
    words = {"1": {"*": "HIGH", "EU-RO-1": "HIGH", "US-TX-3": "NONE"}}
    choice = choose(here, catalog(gpu("NVIDIA A40", words=words)))
    assert why(choice, "NVIDIA A40") == "no stock"
    both = configured(data_center_ids=["US-TX-3", "EU-RO-1"])
    assert choose(both, catalog(gpu("NVIDIA A40", words=words))).offers[0].gpu == "NVIDIA A40"


@pytest.mark.parametrize("stale", [{"fetched_at": NOW - 601}, {"fetched_at": None}, {"cloud": "COMMUNITY"}])
def test_old_stock_is_unknown(stale: dict[str, float | str | None]) -> None:
    gone = replace(catalog(gpu("NVIDIA A40", words={"1": {"*": "NONE"}})), **stale)  # type: ignore[arg-type]
    found = choose(configured(), gone).offers
    assert found[0].gpu == "NVIDIA A40"
    assert {offer.stock for offer in found} == {"unknown"}


def test_stock_is_asked_for_the_counts_that_matter() -> None:
    config = configured()
    assert needed_counts(config, catalog(), wants(config)) == (1,)
    assert needed_counts(config, BUILT_IN, wants(config)) == (1,)
    assert needed_counts(config, catalog(), wants(config, SEVENTY)) == (1, 2, 4, 8)
    assert needed_counts(configured(gpu_type_id="NVIDIA L4", gpu_count=3), catalog(), None) == (3,)


# --- price
def test_the_cap_is_never_passed() -> None:
    choice = choose(configured(max_hourly_cost=0.5))
    assert names(choice.offers) == ["NVIDIA A40", "NVIDIA L4"]
    assert why(choice, "NVIDIA RTX A6000") == "over the cap of $0.50/h"
    assert choice.rejected[0].gpu == "NVIDIA RTX A6000"


@pytest.mark.parametrize("chosen", ["auto", ["NVIDIA A40", "NVIDIA unheard of"]])
def test_an_unknown_price_is_never_under_a_cap(chosen: object) -> None:
    choice = offers(
        config := configured(gpu_type_id=chosen, max_hourly_cost=1000),
        BUILT_IN,
        wants(config),
        refused={},
        now=NOW,
    )
    assert choice.offers == ()
    assert any("price is unknown" in offer.note for offer in choice.rejected)


def test_without_a_cap_an_unknown_price_comes_last() -> None:
    free = gpu("NVIDIA A40", usd_per_hour={})
    found = choose(configured(), catalog(free)).offers
    assert found[-1].gpu == "NVIDIA A40"
    assert found[-1].usd_per_hour is None


def test_a_price_is_that_of_the_whole_machine() -> None:
    found = choose(configured(gpu_type_id="NVIDIA L4", gpu_count=4, max_hourly_cost=1.95))
    assert found.offers == ()
    assert found.rejected[0].usd_per_hour == pytest.approx(1.96)


# --- a user's own list
def test_a_list_keeps_its_order_and_warns_of_what_is_too_small() -> None:
    config = configured(gpu_type_id=["NVIDIA H200", "NVIDIA L4"], max_model_len=65536)
    found = choose(config).offers
    assert names(found) == ["NVIDIA H200", "NVIDIA L4"]
    assert found[1].note.startswith("may fail: too small by")
    assert choose(config, shape=None).offers[1].note == ""
    tight = choose(configured(gpu_type_id="NVIDIA L4", max_model_len=32768)).offers[0]
    assert tight.note.startswith("no room for 4 requests of full length at once: too small by")


def test_an_id_that_the_catalog_lacks_is_tried_all_the_same() -> None:
    found = choose(configured(gpu_type_id="NVIDIA X1"), shape=None).offers
    assert found == (Offer("NVIDIA X1", 1, note="not in the catalog", key="NVIDIA X1|1|SECURE|*"),)


# --- what could not be had
def test_no_capacity_is_remembered_for_three_minutes() -> None:
    config = configured(data_center_ids=["EU-RO-1"])
    key = refusal_key(config, Offer("NVIDIA A40", 1))
    soon = choose(config, refused={key: NOW - 120})
    assert why(soon, "NVIDIA A40") == "no capacity 2 min ago in EU-RO-1"
    assert soon.offers[0].gpu == "NVIDIA L4"
    assert choose(config, refused={key: NOW - 181}).offers[0].gpu == "NVIDIA A40"
    assert choose(configured(), refused={key: NOW}).offers[0].gpu == "NVIDIA A40"  # asked of other places


def test_each_thing_that_can_be_refused_has_its_own_key() -> None:
    keys = {
        refusal_key(config, offer)
        for config in (configured(), configured(cloud="COMMUNITY"), configured(data_center_ids=["EU-RO-1"]))
        for offer in (Offer("NVIDIA L4", 1), Offer("NVIDIA L4", 2), Offer("NVIDIA A40", 1))
    }
    assert len(keys) == 9
    one, other = (configured(data_center_ids=ids) for ids in (["a", "b"], ["b", "a"]))
    assert refusal_key(one, Offer("x")) == refusal_key(other, Offer("x"))


@given(
    stock=st.dictionaries(st.sampled_from(list(simulated.GPUS)), st.sampled_from(STOCK_ORDER)),
    free=st.sets(st.sampled_from(list(simulated.GPUS))),
    cap=st.none() | st.floats(0.1, 60),
    late=st.dictionaries(st.sampled_from(list(simulated.GPUS)), st.floats(-300, 300)),
    gb=st.floats(0.1, 4000),
)
def test_every_type_is_either_taken_or_has_a_reason(
    stock: dict[str, str], free: set[str], cap: float | None, late: dict[str, float], gb: float
) -> None:
    """And what is taken fits, is under the cap, has a price where there is a cap, and is no fresh refusal."""
    config = configured(max_hourly_cost=cap)
    shape = replace(SEVEN, weights_bytes=int(gb * 1e9))
    special = [gpu(id_, words={str(n): {"*": word} for n in (1, 2, 4, 8)}) for id_, word in stock.items()]
    unpriced = [replace(gpu(id_), usd_per_hour={}) for id_ in free - set(stock)]
    refused = {f"{id_}|1|SECURE|*": NOW - ago for id_, ago in late.items()}
    offered = catalog(*special, *unpriced)
    choice = choose(config, offered, shape=shape, refused=refused)
    assert sorted(names(choice.offers) + names(choice.rejected)) == sorted(simulated.GPUS)
    assert all(offer.note for offer in choice.rejected)
    for offer in choice.offers:
        assert wants(config, shape).fit(offer.gpu, simulated.GPUS[offer.gpu].memory, offer.count).ok
        assert offer.stock != "NONE"
        assert cap is None or (offer.usd_per_hour is not None and offer.usd_per_hour <= cap)
        assert NOW - refused.get(offer.key, 0) >= 180
