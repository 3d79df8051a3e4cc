"""pod_config.json and the environment: what is accepted, and what a person is told when it is not."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpod import config
from llmpod.config import jsonc
from llmpod.errors import BadCredentials, ConfigError
from tests.support.source import ROOT

KEY = "rpa_0123456789abcdef"


def load(tmp_path: Path, text: str, **environ: str) -> config.Config:
    path = tmp_path / "pod_config.json"
    path.write_text(text, encoding="utf-8")
    return config.load(path, environ)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return str(caught.value)


def test_smallest_config_has_the_promised_defaults(tmp_path: Path) -> None:
    c = load(tmp_path, '{"model": "org/name"}').common
    assert (c.runtime_seconds, c.template_id, c.proxy_port, c.cloud) == (3600, "vllm", 8000, "SECURE")
    assert (c.cache_dir, c.max_cache_size, c.max_cache_bytes) == (Path("/tmp/llm_cache"), 1000, 2**30)  # noqa: S108 - the promise
    assert (c.use_https, c.ssl_cert, c.ssl_key, c.enable_profiling) == (False, None, None, False)
    assert (c.initial_wait_seconds, c.max_startup_attempts, c.poll_interval_seconds) == (10, 20, 5.0)
    assert c.startup_timeout_seconds >= 20 * 60


def test_paths_are_relative_to_the_file_and_not_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    c = load(tmp_path, '{"model": "a/b", "cache_dir": "c", "state_file": "s.json"}')
    assert (c.common.cache_dir, c.state_file) == (tmp_path / "c", tmp_path / "s.json")


def test_comments_stand_where_people_put_them(tmp_path: Path) -> None:
    text = '// first\n{"model": "a/b", // why\n "runpod_api_url": "https://x//y" // "no": 1\n}'
    assert load(tmp_path, text).common.runpod_api_url == "https://x//y"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"modle": "a/b"}', ["modle: unknown key", "`model`"]),
        ('{"model": "a/b", "proxy_port": "8000"}', ["proxy_port", "valid integer", '"8000"']),
        ('{"model": "a/b", "runtime_seconds": true}', ["runtime_seconds", "true"]),
        ('{"model": "a/b", "gpu_type_id": []}', ["gpu_type_id"]),
        ('{"model": "a/b", "modelStoreId": "c/d"}', ["exactly one of"]),
        ('{"model": "a/b", "use_https": true}', ["use_https", "ssl_cert"]),
        ('{"model": "a/b", "RUNPOD_API_KEY": "rpa_x"}', ["RUNPOD_API_KEY", "does not belong"]),
        ('{"model": "a/b", "model": "c/d"}', ["`model` stands twice"]),
        ('{"model": "a/b",\n "disk_gb": 50,}', ["line 2", "comma"]),
        ('{"model": "a/b", "disk_gb": NaN}', ["NaN"]),
        ('{"model": "a b; rm -rf /"}', ["model"]),
        ('{"model": "a/b", "budget": {"per_day": 1}}', ["Did you mean `budget.per_day_usd`?"]),
        ('{"model": "a/b", "budget": 3}', ["budget: write an object with keys", "(found 3)"]),
        ('{"model": "a/b", "groups": {"g": ["a"]}}', ["groups.g: write an object with keys"]),
        ('{"model": "a/b", "backend": "proces"}', ["'slurm'", "Did you mean `process`?"]),
        (
            '{"model": "a/b", "process": {"command": ["x"], "cwd": 3}}',
            ["process.cwd: write a path as a text"],
        ),
        ("{}", ["exactly one of"]),
        ("[1]", ["expected an object"]),
        ("[" * 100_000, ["nested too deeply"]),
    ],
)
def test_mistakes_are_named_with_place_and_reason(tmp_path: Path, text: str, parts: list[str]) -> None:
    said = refused(tmp_path, text)
    assert [part for part in parts if part not in said] == [], said


@pytest.mark.parametrize(
    ("url", "more", "word"),
    [
        ("http://gpu.lan:8000/v1", {}, "allow_plain_http"),
        ("http://127.0.0.1.lan/v1", {}, "allow_plain_http"),
        ("http://gpu.lan:8000/v1", {"allow_plain_http": True}, ""),
        ("https://gpu.lan/v1", {}, ""),
        *((f"http://{host}:9/v1", {}, "") for host in ("localhost", "127.0.0.2", "[::1]")),
    ],
)
def test_prompts_leave_this_machine_over_https_unless_that_is_said(
    tmp_path: Path, url: str, more: dict[str, bool], word: str
) -> None:
    """T15; a key does not in any case."""
    plain = {"model": "a/b", "backend": "static", **more}
    said = refused(tmp_path, json.dumps({**plain, "static": {"url": url}})) if word else ""
    assert word in said
    if not word:
        load(tmp_path, json.dumps({**plain, "static": {"url": url}}))
    if "//gpu.lan:" in url:
        with_key = {"url": url, "api_key_file": "key"}
        assert "must not travel in clear" in refused(tmp_path, json.dumps({**plain, "static": with_key}))


def test_all_mistakes_are_told_at_once_and_no_token_is_repeated(tmp_path: Path) -> None:
    said = refused(tmp_path, '{"model": "a/b", "hf_token": 8091726354, "disk_gb": 1, "cloud": "ALL"}')
    assert all(key in said for key in ("hf_token", "disk_gb", "cloud"))
    assert "8091726354" not in said


@given(st.text(max_size=200))
def test_no_text_crashes_the_reader(text: str) -> None:
    with suppress(ConfigError):
        assert isinstance(jsonc.parse(text, where="x"), dict)


@given(
    st.dictionaries(
        st.text(max_size=10), st.recursive(st.none() | st.integers() | st.text(), st.lists), max_size=5
    )
)
def test_comments_do_not_change_any_value(document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=1).replace("\n", " // note {\n")
    assert jsonc.parse(text, where="x") == document


def test_the_shipped_schema_is_fresh_and_accepts_the_shipped_config() -> None:
    shipped = (ROOT / "pod_config.schema.json").read_text(encoding="utf-8")
    assert shipped == config.json_schema(), "run scripts/schema"
    example = jsonc.parse((ROOT / "pod_config.json").read_text(encoding="utf-8"), where="pod_config.json")
    jsonschema.Draft202012Validator(json.loads(shipped)).validate(example)
    assert config.load(ROOT / "pod_config.json", {}).common.hub_id


def test_key_sources_in_their_order(tmp_path: Path) -> None:
    home = tmp_path / "home"
    standard, named = home / ".config/llmpod/runpod_api_key", tmp_path / "named"
    for path, value in ((standard, KEY + "-home"), (named, KEY + "-named")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n", encoding="utf-8")
        path.chmod(0o600)
    environ = {"HOME": str(home)}
    assert config.runpod_key(environ).reveal() == KEY + "-home"
    environ["RUNPOD_API_KEY"] = KEY
    assert config.runpod_key(environ).reveal() == KEY
    environ["RUNPOD_API_KEY_FILE"] = str(named)
    assert config.runpod_key(environ).reveal() == KEY + "-named"


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY, encoding="utf-8")
    path.chmod(0o644)
    with pytest.raises(BadCredentials, match="chmod 600"):
        config.runpod_key({"HOME": str(tmp_path), "RUNPOD_API_KEY_FILE": str(path)})


@pytest.mark.parametrize(
    "bad", ["", " ", "short", "rpa_ with spaces in it", "rpa_line\nbreak_0000", "schlüssel-schlüssel"]
)
def test_what_is_no_key_is_refused_early_and_not_repeated(tmp_path: Path, bad: str) -> None:
    with pytest.raises(BadCredentials) as caught:
        config.runpod_key({"HOME": str(tmp_path), "RUNPOD_API_KEY": bad})
    assert len(bad) < 6 or bad not in str(caught.value)


def test_a_key_shows_itself_to_nobody(tmp_path: Path) -> None:
    key = config.runpod_key({"HOME": str(tmp_path), "RUNPOD_API_KEY": KEY})
    assert KEY not in f"{key!r} {key} {[key]}"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:9000/v1/chat/completions", "http://127.0.0.1:9000"),
        ("https://x-8000.proxy.runpod.net/v1/", "https://x-8000.proxy.runpod.net"),
        ("https://api.runpod.ai/v2/abc/openai/v1", "https://api.runpod.ai/v2/abc/openai"),
        ("http://localhost:11434", "http://localhost:11434"),
        (" http://h/prefix/ ", "http://h/prefix"),
        ("http://[::1]:9000/v1", "http://[::1]:9000"),
    ],
)
def test_endpoint_is_reduced_to_what_stands_before_v1(url: str, base: str) -> None:
    assert config.base_url(url) == base


@pytest.mark.parametrize(
    "url",
    [
        *("", "h:80", "ftp://h", "http://u:p@h", "http://h/?a=1", "http://169.254.169.254/v1"),
        *("http://h:99999", "http://h:x", "http://h:0", "http://[::1", "http://a..b", f"http://{'a' * 64}"),
        *(
            "http://b\u00fc.example",
            "http://h/\u00fc",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0.0.0.0/",
        ),
        *("http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[fd00:ec2::254]/", "http://[::]:80/"),
        *("http://[::ffff:169.254.169.254]/", "http://[64:ff9b::a9fe:a9fe]/", "http://[2002:a9fe:a9fe::]/"),
        *("http://169.254.43518/", "http://0251.0376.0251.0376/", "http://224.0.0.1/", "http://[ff02::1]/"),
    ],
)
def test_endpoints_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        config.base_url(url)


def test_proxy_reads_every_promised_variable(tmp_path: Path) -> None:
    settings = config.proxy_settings(
        ["--port", "8123"],
        {
            "RUNPOD_ENDPOINT": "http://h:1/v1/chat/completions",
            "CACHE_DIR": str(tmp_path),
            "MAX_CACHE_SIZE": "7",
            "CACHE_SIZE_BYTES": "9",
            "ENABLE_PROFILING": "true",
            "PREWARM_CACHE": "x",
            "USE_HTTPS": "1",
            "SSL_CERT": "c.pem",
            "SSL_KEY": "k.pem",
            "PORT": "8001",
        },
    )
    assert (settings.endpoint, settings.cache_dir, settings.port) == ("http://h:1", tmp_path, 8123)
    assert (settings.max_cache_size, settings.max_cache_bytes, settings.prewarm_cache) == (7, 9, "x")
    assert settings.enable_profiling
    assert settings.use_https
    assert (settings.ssl_cert, settings.ssl_key) == (Path("c.pem"), Path("k.pem"))


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "x"), ("PORT", "70000"), ("USE_HTTPS", "maybe"), ("MAX_CACHE_SIZE", "-1")]
)
def test_wrong_variables_are_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        config.proxy_settings([], {name: value})


def test_no_message_shows_a_webhook_or_a_token(tmp_path: Path) -> None:
    secret = "http://hooks.example.com/services/T0/B0/hush"
    said = refused(tmp_path, json.dumps({"model": "a/b", "notifications": [{"url": secret}]}))
    assert "notifications.0.url" in said
    assert "hush" not in said
    wrong = refused(tmp_path, json.dumps({"model": "a/b", "notifications": [{"url": "ftp://hush"}]}))
    assert "hush" not in wrong
    kept = config.parse(
        {"model": "a/b", "hf_token": "hf_hush", "notifications": [{"url": "https://hush.example.com"}]},
        path=tmp_path / "pod_config.json",
        environ={},
    )
    assert "hush" not in repr(kept)
