"""The settings of the cache: from the file through the proxy's environment into the proxy."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmpod import config
from llmpod.cli.managing import managed
from llmpod.cli.proxyenv import proxy_environ
from llmpod.config.served import identity_of
from llmpod.errors import ConfigError
from llmpod.lifecycle.store import Store


def through(tmp_path: Path, **keys: Any) -> config.ProxySettings:
    """What a proxy that the manager starts with this configuration reads."""
    raw = {"model": "org/m", **keys}
    loaded = config.parse(raw, path=tmp_path / "pod_config.json", environ={})
    return config.proxy_settings([], proxy_environ(loaded, {}, Store(loaded.state_file)))


def test_the_defaults_store_everything_for_a_week(tmp_path: Path) -> None:
    settings = through(tmp_path)
    assert settings.entry_seconds == 7 * 86400
    assert settings.cache_policy == {"*": "always"}
    assert set(settings.cache_masks) == {"item-ids", "kilo-time"}
    assert (settings.cache_mode, settings.cache_pace) == ("normal", 0)
    alone = config.proxy_settings([], {})
    assert (alone.entry_seconds, alone.cache_masks) == (settings.entry_seconds, settings.cache_masks)


def test_every_key_reaches_the_proxy(tmp_path: Path) -> None:
    policy = {"/v1/chat/completions": "deterministic", "*": "off"}
    settings = through(
        tmp_path, cache_policy=policy, cache_masks=["kilo-time"], cache_ttl_seconds=60, cache_pace=40
    )
    assert settings.cache_policy == policy
    assert settings.cache_masks == ("kilo-time",)
    assert (settings.entry_seconds, settings.cache_pace) == (60, 40)
    assert through(tmp_path, cache_shared=True).cache_shared is not settings.cache_shared
    assert through(tmp_path, cache_masks=[]).cache_masks == ()
    assert through(tmp_path, cache_ttl_seconds=None).entry_seconds is None
    recording = through(tmp_path, cache_mode="replay-only", cache_ttl_seconds=60)
    assert (recording.cache_mode, recording.entry_seconds) == ("replay-only", None)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"cache_policy": "sometimes"}, "cache_policy"),
        ({"cache_policy": {"chat": "off"}}, "cache_policy"),
        ({"cache_policy": {"/v1/embeddings": "maybe"}}, "cache_policy"),
        ({"cache_masks": ["no-such"]}, "cache_masks"),
        ({"cache_ttl_seconds": 0}, "cache_ttl_seconds"),
        ({"cache_mode": "replay"}, "cache_mode"),
        ({"cache_pace": -1}, "cache_pace"),
    ],
)
def test_wrong_keys_are_named(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        through(tmp_path, **keys)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CACHE_POLICY", "sometimes"),
        ("CACHE_POLICY", "[]"),
        ("CACHE_POLICY", '{"chat": "off"}'),
        ("CACHE_POLICY", json.dumps({"/v1/x": ["off"]})),
        ("CACHE_MASKS", "kilo-time,other"),
        ("CACHE_TTL_SECONDS", "0"),
        ("CACHE_TTL_SECONDS", "soon"),
        ("CACHE_MODE", "replay"),
        ("CACHE_PACE", "-1"),
        ("CACHE_PACE", "1" * 5000),
    ],
)
def test_wrong_variables_are_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        config.proxy_settings([], {name: value})


def test_what_decides_the_answers_is_in_the_identity_and_nothing_else(tmp_path: Path) -> None:
    plain = through(tmp_path).identity
    assert plain == "org/m"
    other: list[dict[str, Any]] = [
        {"model": "org/m@v2"},
        {"vllm_args": ["--seed", "1"]},
        {"vllm_args": ["--seed", "2"]},
        {"template_id": "mine"},
        {"backend": "process", "process": {"command": ["serve"]}},
        {"backend": "process", "process": {"command": ["serve", "--seed", "1"]}},
    ]
    seen = [through(tmp_path, **keys).identity for keys in other]
    assert len({plain, *seen}) == len(other) + 1
    same: list[dict[str, Any]] = [
        {"gpu_type_id": "auto"},
        {"max_model_len": 4096},
        {"image": "vllm/vllm-openai:v0.30.0"},
    ]
    assert {through(tmp_path, **keys).identity for keys in same} == {plain}


def test_a_record_has_the_identity_that_the_configuration_promises(tmp_path: Path) -> None:
    """So what was stored before the first pod, or is asked for after the last, has the same key."""
    raw = {"model": "org/m@v2", "vllm_args": ["--seed", "1"], "hf_token": "hf_x", "gpu_count": 2}
    loaded = config.parse(raw, path=tmp_path / "pod_config.json", environ={})
    record = managed(loaded.common, "digest", lambda _: pytest.fail("nothing is drawn")).config
    assert identity_of(record) == through(tmp_path, **raw).identity
