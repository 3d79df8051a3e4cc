"""LIST in pages, and the other listings: what RunPod has, and what it says that it has."""

import itertools
from typing import Any

import pytest

from tests.sim.runpod.api import GPU, Api, body, problem


@pytest.fixture
def five(api: Api) -> list[str]:
    """Five pods that never run, newest first."""
    api.sim.set(container_seconds=1e6)
    return [api.create(name=f"pod-{number}")["id"] for number in range(5)][::-1]


def page(api: Api, **query: str) -> tuple[list[str], str | None]:
    found = api.call("GET", "/v2/pods", params=query).json()
    pagination = found["pagination"]
    assert bool(pagination["hasNextPage"]) == bool(pagination.get("nextCursor"))
    return [pod["id"] for pod in found["pods"]], pagination.get("nextCursor")


def all_pages(api: Api, **query: str) -> list[list[str]]:
    pages, cursor = [], ""
    for _ in range(10):
        ids, following = page(api, **query, **({"cursor": cursor} if cursor else {}))
        pages.append(ids)
        if following is None:
            return pages
        cursor = following
    raise AssertionError(f"no end: {pages}")


def test_newest_first_and_all_in_one_page(api: Api, five: list[str]) -> None:
    assert page(api) == (five, None)


def test_limits_and_cursors(api: Api, five: list[str]) -> None:
    assert all_pages(api, limit="2") == [five[:2], five[2:4], five[4:]]
    assert all_pages(api, limit="5") == [five]


def test_the_server_may_make_pages_smaller_than_asked(api: Api, five: list[str]) -> None:
    api.sim.set(page_size=1)
    assert all_pages(api, limit="1000") == [[pod_id] for pod_id in five]


def test_a_page_survives_what_happens_between_two(api: Api, five: list[str]) -> None:
    first, cursor = page(api, limit="2")
    assert cursor
    api.create(name="meanwhile")
    api.call("DELETE", f"/v2/pods/{first[1]}")
    assert page(api, limit="2", cursor=cursor)[0] == five[2:4]


def test_before_september_there_were_no_pages(api: Api, five: list[str]) -> None:
    api.sim.set(pagination=False)
    found = api.call("GET", "/v2/pods", params={"limit": "2"}).json()
    assert found.keys() == {"pods"}
    assert [pod["id"] for pod in found["pods"]] == five


@pytest.mark.parametrize("query", [{"cursor": "foreign"}, {"limit": "0"}, {"limit": "1001"}, {"limit": "x"}])
def test_a_bad_page_is_refused(api: Api, query: dict[str, str]) -> None:
    assert problem(api.call("GET", "/v2/pods", params=query))["status"] == 422


def test_an_unknown_query_is_ignored(api: Api, five: list[str]) -> None:
    assert api.ids(name="pod-3", nmae="pod-3") == five


STOCK = {"include": "AVAILABILITY", "product": "POD", "count": "1", "cloud": "SECURE"}


def gpu(api: Api, gpu_id: str = GPU, **query: str) -> dict[str, Any]:
    found = api.call("GET", "/v2/catalog/gpus", params=query).json()["gpus"]
    return next(entry for entry in found if entry["id"] == gpu_id)


def test_the_catalog_of_gpus(api: Api) -> None:
    plain = gpu(api)
    assert (plain["memory"], plain["price"]["secure"], plain["manufacturer"]) == (24, 0.49, "NVIDIA")
    assert not plain.keys() & {"availability", "dataCenters", "cudaVersions"}
    stocked = gpu(api, **STOCK)
    assert stocked["availability"] == "HIGH"
    assert {center["availability"] for center in stocked["dataCenters"]} == {"HIGH"}
    assert api.call("GET", f"/v2/catalog/gpus/{GPU}").json()["id"] == GPU
    assert api.call("GET", "/v2/catalog/gpus/nosuch").status_code == 404


def test_the_catalog_tells_of_no_stock_unless_it_lies(api: Api) -> None:
    api.sim.set(no_capacity=[GPU])
    assert gpu(api, **STOCK)["availability"] == "NONE"
    assert "dataCenters" not in gpu(api, **STOCK)
    api.sim.set(catalog_lies=True)
    assert gpu(api, **STOCK)["availability"] == "HIGH"
    assert api.call("POST", "/v2/pods", json=body()).status_code == 400


def test_a_question_about_stock_must_be_whole(api: Api) -> None:
    for query in ({"product": "POD"}, {"include": "AVAILABILITY"}):
        assert problem(api.call("GET", "/v2/catalog/gpus", params=query))["status"] == 400


def test_data_centers_and_templates(api: Api) -> None:
    centers = [entry["id"] for entry in api.call("GET", "/v2/catalog/datacenters").json()["dataCenters"]]
    assert "EU-RO-1" in centers
    for center in itertools.islice(centers, 2):
        assert api.create(dataCenterIds=[center])["dataCenterId"] == center
    templates = api.call("GET", "/v2/catalog/templates", params={"source": "official"}).json()["templates"]
    assert all(template["id"] and template["name"] for template in templates)
    assert templates
