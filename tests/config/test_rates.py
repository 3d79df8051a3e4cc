"""Limits by path and prices of tokens: from the file through the proxy's environment into the proxy."""

from pathlib import Path
from typing import Any

import pytest

from llmpod.config.rates import Per, RateLimit, TokenPrice
from llmpod.errors import ConfigError
from tests.config.test_caching import through


def test_the_tables_reach_the_proxy(tmp_path: Path) -> None:
    settings = through(
        tmp_path,
        rate_limits={"/v1/audio/*": {"requests_per_minute": 5, "per": "address"}},
        token_prices={"*": {"prompt": 1, "completion": 2.5}},
    )
    assert settings.rate_limits == {"/v1/audio/*": RateLimit(requests_per_minute=5, per=Per.ADDRESS)}
    assert settings.token_prices == {"*": TokenPrice(prompt=1, completion=2.5)}
    bare = through(tmp_path)
    assert (bare.rate_limits, bare.token_prices) == ({}, {})


@pytest.mark.parametrize(
    "keys",
    [
        {"rate_limits": {"embeddings": {"requests_per_minute": 1}}},
        {"rate_limits": {"/v1/a*b": {"requests_per_minute": 1}}},
        {"rate_limits": {"*": {}}},
        {"rate_limits": {"*": {"requests_per_minute": 1.5}}},
        {"token_prices": {"*": {"prompt": -1, "completion": 0}}},
        {"token_prices": {"*": {"prompt": 1}}},
    ],
)
def test_wrong_tables_are_refused_by_name(tmp_path: Path, keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(keys))):
        through(tmp_path, **keys)
