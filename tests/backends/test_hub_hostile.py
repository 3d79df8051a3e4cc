"""Whatever stands in a document of the hub, it becomes a size or one of the ordinary errors."""

import json
from contextlib import closing, suppress

import pytest

from llmpod.backends.hub import Hub, Repo
from llmpod.backends.hub_texts import tensors
from llmpod.errors import LlmpodError, ProviderUnavailable
from tests.support.rawserver import answering


def look_up(url: str) -> Repo:
    with closing(Hub(url, None, total_seconds=5)) as hub:
        return hub.look_up("org/seven")


ODD: list[object] = [
    None, -1, 0, True, 0.5, "x", "9" * 50, 10**400, [], {}, [0, 1e999], [1e999, 0], [float("nan"), 1],
    [5, 2], ["0", "99"], [0, 10**400], [0, 10**30], [0], [0, 1, 2], [True, 9],
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
def test_no_offsets_are_more_than_a_malformed_header(odd: object) -> None:
    for entry in (odd, {"data_offsets": odd, "dtype": "F16"}):
        with pytest.raises(ProviderUnavailable, match="malformed"):
            tensors({"a": entry})


PAGES: list[dict[str, object]] = [
    {"sha": "\ud800", "siblings": [{"rfilename": "\ud800.safetensors", "size": 5}]},
    {"siblings": [{"rfilename": "pytorch_model.bin", "size": 10**400}]},
    {"siblings": [{"rfilename": "model.safetensors", "size": True}, None, 7]},
    {
        "siblings": [{"rfilename": "pytorch_model.bin", "size": 9}],
        "safetensors": {"parameters": {"F32": 1e999}},
    },
]


@pytest.mark.parametrize("page", PAGES, ids=range(len(PAGES)))
def test_a_hostile_listing_is_an_ordinary_error_or_a_size(page: dict[str, object]) -> None:
    with answering(json.dumps(page)) as url, suppress(LlmpodError):
        assert look_up(url).weights_bytes == 9


@pytest.mark.parametrize("location", ["http://[", "http://[::1/x", "//", "\x1b[2J://x"])
def test_a_hostile_redirect_is_an_ordinary_error(location: str) -> None:
    with answering("", status="302 Found", headers=(f"Location: {location}",)) as url:
        with pytest.raises(ProviderUnavailable) as refused:
            look_up(url)
        assert "\x1b" not in str(refused.value)


def test_no_wait_is_endless() -> None:
    with answering("", status="503 Busy", headers=(f"Retry-After: {'9' * 400}",)) as url:
        with pytest.raises(ProviderUnavailable) as refused:
            look_up(url)
        assert refused.value.retry_after == 3600
