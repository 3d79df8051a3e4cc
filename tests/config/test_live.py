"""Each setting of the proxy is either taken over while it runs or needs a restart; somebody has to decide which."""

from dataclasses import fields

from llmpod.config import FIXED, ProxySettings, changed, needs_restart
from llmpod.config.proxy import VARIABLES

# taken over by SIGHUP: what reads each of them is made anew, or told (llmpod/proxy/reload.py)
LIVE = {
    *(
        "models",
        "open_names",
        "identity",
        "max_model_len",
        "max_cache_size",
        "max_cache_bytes",
        "cache_ttl_seconds",
    ),
    *("cache_policy", "cache_masks", "cache_mode", "cache_pace", "cache_shared", "enable_profiling"),
    *("log_level", "upstream_stream", "upstream_usage", "keepalive_seconds", "keepalive_form"),
    *("keepalive_json", "finish_seconds", "drain_seconds", "connect_seconds", "first_byte_seconds"),
    *("idle_seconds", "total_seconds", "keep_alive_seconds", "max_body_bytes", "max_bodies_bytes"),
    *("max_header_bytes", "auth", "keys_file", "own_key", "allowed_hosts", "cors_origins"),
    *(
        "allow_insecure_bind",
        "allow_plain_http",
        "memory_bytes",
        "header_seconds",
        "body_idle_seconds",
        "stall_seconds",
    ),
    *("max_connections", "max_connections_per_source", "max_in_flight", "max_queue", "queue_seconds"),
    *("requests_per_minute", "tokens_per_minute", "rate_limits", "model_limits", "token_prices", "loading"),
    *("routes", "demand"),
}


def test_every_setting_is_decided_upon() -> None:
    known = {field.name for field in fields(ProxySettings)} - {"settings_file", "settings_digest"}
    assert known == LIVE | FIXED
    assert not LIVE & FIXED


def test_variables_are_as_their_settings_are() -> None:
    assert {name for name in VARIABLES if needs_restart(name)} == {
        name for name, (field, _) in VARIABLES.items() if field in FIXED
    }
    assert needs_restart("A_VARIABLE_OF_ANOTHER_VERSION")


def test_what_changed_is_named() -> None:
    assert list(changed(ProxySettings(), ProxySettings())) == []
    assert list(changed(ProxySettings(), ProxySettings(port=1, settings_digest="x"))) == ["port"]
