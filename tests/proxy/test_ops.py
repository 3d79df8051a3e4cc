"""What people, scrapers and supervisors ask: the mission's fields, exactly, and nothing that costs."""

import base64
import hashlib
import json
import re
import threading
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.proxy.front import Proxy, chat_body, proxy, settings
from tests.proxy.stub import CHAT, Stub, halfway, stub
from tests.support.wait import eventually

HEALTH = {
    *("status", "timestamp", "endpoint", "cache_dir", "cache_entries", "cache_size_bytes", "max_cache_size"),
    *("max_cache_bytes", "uptime", "llm_running", "target_port", "last_request"),
}
COUNTS = ("requests_total", "cache_hits", "cache_misses", "errors_total")
METRICS = {*COUNTS, "avg_response_time", "cache_entries", "cache_size_bytes", "cache_hit_rate", "error_rate"}
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


def test_health(cache_dir: Path, env: dict[str, str]) -> None:
    with stub() as server:
        more = {"MAX_CACHE_SIZE": "7", "CACHE_SIZE_BYTES": "70000", "LLMPOD_PROXY_TOKEN": "t0ken"}
        with proxy(env | settings(cache_dir, server.url, **more)) as front:
            before = front.get("/health").json
            assert before["last_request"] is None
            front.ask(chat_body())
            health = front.get("/health").json
    assert set(health) >= HEALTH
    assert (health["status"], health["llm_running"], health["instance"]) == ("healthy", True, "t0ken")
    assert (health["cache_entries"], health["max_cache_size"], health["max_cache_bytes"]) == (1, 7, 70000)
    assert (health["endpoint"], health["target_port"]) == (server.url, server.port)
    assert health["cache_dir"] == str(cache_dir)
    assert health["cache_size_bytes"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", health["timestamp"])
    assert health["last_request"] is not None
    assert not server.turns[1:]


def test_metrics_add_up(cache_dir: Path, env: dict[str, str]) -> None:
    with stub() as server, proxy(env | settings(cache_dir, server.url)) as front:
        for _ in range(4):
            front.ask(chat_body())
        front.ask(b"{", headers={"Content-Type": "application/json"})
        metrics = front.metrics()
        text = front.get("/metrics", {"Accept": "text/plain"})
        openmetrics = front.get("/metrics", {"Accept": OPENMETRICS})
        assert front.get("/metrics", {"Accept": "*/*"}).headers["content-type"] == "application/json"
    assert set(metrics) >= METRICS
    assert [metrics[name] for name in COUNTS] == [5, 3, 1, 1]
    assert (metrics["cache_hit_rate"], metrics["error_rate"]) == (75.0, 20.0)
    assert 0 < metrics["avg_response_time"] < 1
    assert metrics["requests_by_model"] == {"m": 4}
    families = list(parse_text(text.body.decode()))
    plain = {sample.name: sample.value for family in families for sample in family.samples}
    assert plain["llmpod_requests_total"] == 5
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    typed = list(parse_openmetrics(openmetrics.body.decode()))  # type: ignore[no-untyped-call]  # it ships no types
    results = next(family for family in typed if family.name == "llmpod_cache_results")
    assert {s.labels["result"]: s.value for s in results.samples if s.name.endswith("_total")} == {
        "HIT": 3, "MISS": 1, "JOIN": 0, "BYPASS": 0
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/metrics", "/dashboard"])
def test_head_works_where_get_does(front: Proxy, path: str) -> None:
    got, head = front.get(path), front.get(path, method="HEAD")
    assert (got.status, head.status, head.body) == (200, 200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert front.ask(b"{}", path=path).status == 405


def test_a_browser_finds_the_page_and_a_program_is_told_where_the_api_is(front: Proxy) -> None:
    for method in ("GET", "HEAD"):
        shown = front.get("/", {"Accept": "text/html,application/xhtml+xml"}, method=method)
        assert (shown.status, shown.headers["location"]) == (307, "dashboard")
    there = front.get("/dashboard", {"Accept": "text/html"})
    assert b"<title>llmpod</title>" in there.body
    told = front.get("/")
    assert told.status == 404
    assert "OpenAI's API is under /v1" in told.json["error"]["message"]
    strange = {"Accept": "text/html", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert front.get("/", strange).status == 403, "as for every other page here"
    assert front.get("/", {"Accept": "text/html", "Host": "rebound.example"}).status == 421


def test_the_page_is_sealed(front: Proxy) -> None:
    reply = front.get("/dashboard", {"Accept": "text/html,application/xhtml+xml"})
    page, policy = reply.body.decode(), reply.headers["content-security-policy"]
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|https?://|\bon\w+=|style=", page
    )


def test_the_dashboard_for_programs(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("recently"))
    dashboard = front.get("/dashboard").json
    assert {"health", "metrics", "system", "configuration", "recent"} <= set(dashboard)
    assert dashboard["recent"][0]["path"] == "/v1/chat/completions"
    assert "recently" not in str(dashboard)


def test_debug_only_when_profiling(front: Proxy, cache_dir: Path, env: dict[str, str]) -> None:
    refused = front.get("/debug/cache")
    assert refused.status == 404
    assert "ENABLE_PROFILING" in refused.json["error"]["message"]
    with stub() as server, proxy(env | settings(cache_dir, server.url, ENABLE_PROFILING="true")) as profiled:
        for text in ("a", "b", "a"):
            profiled.ask(chat_body(text))
        debug = profiled.get("/debug/cache").json
    assert set(debug) == {"cache_entries", "total_entries", "lru_order"}
    assert debug["total_entries"] == len(debug["lru_order"]) == 2


def test_unknown_paths_have_the_shape_too(front: Proxy) -> None:
    reply = front.get("/chat/completions")
    assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")
    assert "/v1" in reply.json["error"]["message"]


def test_an_unusable_directory_is_said_and_does_not_matter(tmp_path: Path, env: dict[str, str]) -> None:
    planted = tmp_path / "planted"
    planted.symlink_to(tmp_path)
    with stub() as server, proxy(env | settings(planted, server.url)) as front:
        assert front.get("/health").json["cache_degraded"]
        assert [front.ask(chat_body()).cache for _ in range(2)] == ["MISS", "HIT"]


def test_a_directory_whose_name_is_no_text(tmp_path: Path, env: dict[str, str]) -> None:
    with stub() as server, proxy(env | settings(tmp_path / "caf\udce9", server.url)) as front:
        assert front.get("/health").json["cache_dir"].endswith("caf\udce9")
        assert front.get("/dashboard").status == 200


def test_a_model_whose_name_is_no_text(front: Proxy, server: Stub) -> None:
    """Found by chance (tests/fuzz): one such request, and the dashboard was a 500 for ever."""
    assert front.ask(b'{"model": "\\ud800"}', path="/v1/models").status == 400
    for path in ("/dashboard", "/metrics"):
        assert front.get(path).status == 200
    assert front.get("/metrics", {"Accept": "text/plain"}).status == 200
    assert not server.turns


def test_the_name_of_an_answer_is_never_anothers(cache_dir: Path, env: dict[str, str]) -> None:
    """An operator looks, and cancels a moment later: by then another answer may stand where that one stood."""
    names, go = list[str](), threading.Event()
    with stub() as server, proxy(env | settings(cache_dir, server.url)) as front:
        server.script = halfway(go)
        for number in range(20):
            with front.client() as client:
                client.send("POST", CHAT, json.dumps(chat_body(f"{number}", stream=True)).encode())
                client.open_reply()
                (answer,) = front.get("/admin/inflight").json["in_flight"]
                names.append(answer["id"])
            eventually(lambda: not front.get("/admin/inflight").json["in_flight"])
        go.set()
    assert len(set(names)) == len(names), names
