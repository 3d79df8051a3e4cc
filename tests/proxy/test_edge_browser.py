"""A real Chromium, with a page of another origin that tries everything a page can: no call upstream, no byte read.

The headers that a browser sends in each case are its own here; the matrix of them is in test_edge_pages.py.
"""

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmpod.proxy.access import ROUTES
from tests.proxy.front import Proxy, proxy, settings
from tests.proxy.stub import CHAT, Stub, Turn, plain, stub
from tests.support.process import Running, running
from tests.support.source import ROOT
from tests.support.wait import eventually

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-crash-reporter",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
]
pytestmark = [
    pytest.mark.component,
    pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium"),
    pytest.mark.timeout(300),
]

PAGE = (ROOT / "tests/proxy/attacker.html").read_text()


class Site:
    """A web site of somebody's, with the page on it; its reports are what the page found out."""

    def __init__(self, server: Stub) -> None:
        self.server = server
        self.targets: list[str] = []
        self.reports: list[dict[str, Any]] = []
        server.script = self._serve

    def _serve(self, turn: Turn) -> None:
        if turn.method == "POST":
            self.reports.append(json.loads(turn.body))
        paths = [base + path for base in self.targets for path in (*ROUTES, "/v1/models", CHAT)]
        turn.reply(PAGE.replace("PATHS", json.dumps(paths)).encode(), "connection: close", kind="text/html")
        turn.close()


@contextmanager
def chromium(profile: Path, *arguments: str) -> Iterator[Running]:
    assert CHROMIUM is not None
    with running([CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *arguments]) as browser:
        yield browser
        if browser.code is None:
            browser.signal(signal.SIGTERM)
            browser.wait(within=30)


@pytest.fixture
def sites(tmp_path: Path, env: dict[str, str]) -> Iterator[tuple[Proxy, Stub, Site, Site]]:
    """The proxy, its model server, a site that is welcome and one that is not."""
    with stub() as server, stub() as welcome, stub() as stranger:
        server.script = plain
        origins = {"LLMPOD_CORS_ORIGINS": welcome.url, "ENABLE_PROFILING": "1"}
        with proxy(env | settings(tmp_path / "c", server.url, **origins)) as front:
            found = Site(welcome), Site(stranger)
            for site in found:
                site.targets = [f"http://{name}:{front.port}" for name in ("127.0.0.1", "localhost")]
            yield front, server, *found


def visit(site: Site, profile: Path, *arguments: str, at: str = "") -> dict[str, Any]:
    with chromium(profile, *arguments, at or f"{site.server.url}/"):
        eventually(lambda: site.reports, within=120)
    return site.reports.pop()


def test_a_page_of_a_stranger_gets_nothing(sites: tuple[Proxy, Stub, Site, Site], tmp_path: Path) -> None:
    """Its own host by another port (the same site to a browser), and by another name (another site)."""
    front, server, _, stranger = sites
    report = visit(stranger, tmp_path / "profile")
    assert report.pop("sizes") == 0
    assert len(report) > 2 * 8 * 20
    assert {name: found for name, found in report.items() if found not in ("refused", "silence")} == {}
    assert not server.turns
    assert front.metrics()["refused_at_edge_total"] > 2 * 8 * 10


def test_a_page_that_is_welcome_gets_what_it_asks_for(
    sites: tuple[Proxy, Stub, Site, Site], tmp_path: Path
) -> None:
    """So the other test can see a reading where there is one."""
    _, server, welcome, _ = sites
    report = visit(welcome, tmp_path / "profile")
    assert str(report[f"POST cors omit application/json {welcome.targets[0]}{CHAT}"]).startswith("read ")
    assert str(report[f"GET cors omit {welcome.targets[0]}/metrics"]).startswith("read ")
    assert server.turns
    assert {turn.headers["content-type"] for turn in server.turns if turn.method == "POST"} == {
        "application/json"
    }


def test_a_name_that_was_rebound_shows_nothing(sites: tuple[Proxy, Stub, Site, Site], tmp_path: Path) -> None:
    """The page's own name means our address now, so the browser takes both for one origin."""
    front, server, _, _ = sites
    arguments = ("--host-resolver-rules=MAP rebound.test 127.0.0.1", "--dump-dom")
    with chromium(tmp_path / "p", *arguments, f"http://rebound.test:{front.port}/metrics") as browser:
        browser.wait(within=60)
        assert "wrong_host" in browser.out
        assert "requests_total" not in browser.out
    assert not server.turns
