"""No web page can spend a cent or read a byte through localhost; editors' panels and configured pages can."""

import itertools
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmpod.proxy.access import ROUTES
from tests.proxy.front import Client, Proxy, Reply, chat_body, proxy, settings
from tests.proxy.stub import CHAT, Stub, stub

BODY = json.dumps(chat_body("page")).encode()
WELCOME = "https://app.example"
EDITOR = "vscode-webview://0abc1def"
FOREIGN = [
    "null",
    "https://evil.example",
    "http://localhost:3000",
    "https://app.example.evil",
    "vscode-webview://",
]
FOREIGN += [
    "http://127.0.0.1",
    "https://localhost",
    "file://",
    "chrome-extension://abc",
    "https://app.example:8443",
]
SITES = [None, "none", "same-origin", "same-site", "cross-site"]
TYPES = [
    "application/json",
    "text/plain",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Stub]]:
    environ = {
        "LLMPOD_CORS_ORIGINS": f"{WELCOME}, https://other.example",
        "LLMPOD_ALLOWED_HOSTS": "My-Box.lan",
    }
    with stub() as server:
        cache = tmp_path_factory.mktemp("cache") / "c"
        with proxy(
            {"PATH": "/usr/bin:/bin"} | settings(cache, server.url, ENABLE_PROFILING="1", **environ)
        ) as front:
            yield front, server


def ask(front: Proxy, method: str, path: str, **headers: str | None) -> Reply:
    """With header names in Python's spelling; None leaves one out."""
    sent = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
    with Client(front.port) as client:
        client.send(method, path, BODY if method == "POST" else b"", sent)
        return client.reply(method)


def test_no_page_of_a_stranger_is_served(house: tuple[Proxy, Stub]) -> None:
    """Origins x fetch sites x content types x all routes: 0 calls upstream, 0 bytes of an answer."""
    front, server = house
    server.turns.clear()
    for path in [*ROUTES, CHAT]:
        for origin, site in itertools.product(FOREIGN, SITES):
            for method, kind in [("GET", None), *(("POST", kind) for kind in TYPES)]:
                reply = ask(front, method, path, Origin=origin, Sec_Fetch_Site=site, Content_Type=kind)
                assert reply.status == 403, (path, origin, site, method)
                assert reply.json["error"]["code"] == "forbidden"
                assert "access-control-allow-origin" not in reply.headers
    assert not server.turns


@pytest.mark.parametrize("site", ["same-site", "cross-site", "Cross-Site", "bogus"])
@pytest.mark.parametrize("path", [*ROUTES, CHAT, "/v1/models"])
def test_requests_that_carry_no_origin_tell_where_they_come_from(
    house: tuple[Proxy, Stub], path: str, site: str
) -> None:
    """An image, a script, a form's GET, a link."""
    front, server = house
    server.turns.clear()
    assert ask(front, "GET", path, Sec_Fetch_Site=site).status == 403
    assert not server.turns


@pytest.mark.parametrize("origin", [EDITOR, WELCOME, "https://other.example"])
@pytest.mark.parametrize("site", ["cross-site", "same-site", None])
def test_pages_that_may(house: tuple[Proxy, Stub], origin: str, site: str | None) -> None:
    """A preflight, a miss, a hit and a page of ours; the browser may read what came."""
    front, _ = house
    reply = ask(
        front, "OPTIONS", CHAT, Origin=origin, Sec_Fetch_Site=site, Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization,content-type",
    )  # fmt: skip
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["access-control-allow-origin"] == origin
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert reply.headers["access-control-allow-headers"] == "authorization,content-type"
    for method, path in [("POST", CHAT), ("POST", CHAT), ("GET", "/metrics"), ("GET", "/v1/models")]:
        reply = ask(front, method, path, Origin=origin, Sec_Fetch_Site=site)
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == origin
        assert reply.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", [None, "https://evil.example"])
def test_a_preflight_of_others_is_answered_and_allows_nothing(
    house: tuple[Proxy, Stub], origin: str | None
) -> None:
    front, server = house
    server.turns.clear()
    reply = ask(front, "OPTIONS", CHAT, Origin=origin, Access_Control_Request_Method="POST")
    assert reply.status == (403 if origin else 204)
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert not server.turns


def test_our_own_page_may(house: tuple[Proxy, Stub]) -> None:
    front, _ = house
    host = f"localhost:{front.port}"
    for path in ("/dashboard", "/metrics"):
        reply = ask(front, "GET", path, Host=host, Origin=f"http://{host}", Sec_Fetch_Site="same-origin")
        assert reply.status == 200


@pytest.mark.parametrize("name", ["my-box.lan", "MY-BOX.lan:99", "localhost", "127.0.0.1:1", "[::1]"])
def test_names_of_ours(house: tuple[Proxy, Stub], name: str) -> None:
    assert ask(house[0], "GET", "/livez", Host=name).status == 200


@pytest.mark.parametrize("path", [*ROUTES, CHAT, "/v1/models"])
@pytest.mark.parametrize(
    "name", ["evil.example", "localhost.evil.example", "my-box.lan.", "10.0.0.1", "0.0.0.0:80"]
)
def test_other_names_are_refused_everywhere(house: tuple[Proxy, Stub], name: str, path: str) -> None:
    """DNS rebinding: the page's own name is in the Host field, whatever address it was made to mean."""
    front, server = house
    server.turns.clear()
    for method in ("GET", "POST", "OPTIONS"):
        reply = ask(front, method, path, Host=name)
        assert (reply.status, reply.json["error"]["code"]) in [(421, "wrong_host"), (400, "bad_request")]
    assert not server.turns


def test_no_answer_can_do_anything_in_a_browser(house: tuple[Proxy, Stub]) -> None:
    front, _ = house
    replies = [ask(front, "GET", path) for path in ROUTES]
    replies += [ask(front, "POST", CHAT), ask(front, "POST", CHAT), ask(front, "GET", "/v1/models")]
    replies += [ask(front, "GET", "/nowhere"), ask(front, "POST", CHAT, Content_Type="text/plain")]
    replies.append(ask(front, "GET", "/dashboard", Accept="text/html"))
    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        policy = reply.headers["content-security-policy"]
        assert policy.count("default-src 'none'") == policy.count("frame-ancestors 'none'") == 1
        assert "sandbox" in policy or reply is replies[-1]
        assert "access-control-allow-origin" not in reply.headers


def test_files_are_taken_where_files_belong(house: tuple[Proxy, Stub]) -> None:
    front, server = house
    server.turns.clear()
    kind = "multipart/form-data; boundary=x"
    assert ask(front, "POST", CHAT, Content_Type=kind).status == 415
    assert not server.turns
    assert ask(front, "POST", "/v1/audio/transcriptions", Content_Type=kind).status == 200


def test_no_get_wakes_a_model(tmp_path: Path, env: dict[str, str]) -> None:
    """With nothing running, a POST is noted as a wish; what a link or an image can cause is not."""
    state = tmp_path / "pod_state.json"
    usage = tmp_path / ".llmpod/pod_state/usage.json"
    environ = settings(tmp_path / "c", LLMPOD_STATE=str(state), LLMPOD_MODELS="m")
    with proxy(env | environ) as front:
        for method in ("GET", "HEAD", "DELETE"):
            assert ask(front, method, "/v1/files/x").status == 503
        assert front.process.stop() == 0
        assert not usage.exists() or '"wake_wanted": null' in usage.read_text()
    with proxy(env | environ) as front:
        assert ask(front, "POST", CHAT).status == 503
        assert front.process.stop() == 0
        assert '"wake_wanted": null' not in usage.read_text()


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not socket.has_dualstack_ipv6(),
    reason="needs sockets for both kinds of addresses, and all of 127.0.0.0/8",
)
def test_an_address_of_ours_is_its_name_on_a_socket_for_both_kinds(
    tmp_path: Path, env: dict[str, str]
) -> None:
    """Found by a review: a proxy on `::` did not know itself by its IPv4 address."""
    bind = {"LLMPOD_HOST": "::", "LLMPOD_ALLOW_INSECURE_BIND": "true"}
    with (
        proxy(env | settings(tmp_path / "c", "http://127.0.0.1:9", **bind)) as front,
        socket.create_connection(("127.0.0.2", front.port), 10) as sock,
    ):
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.2\r\n\r\n")
        assert sock.recv(64).startswith(b"HTTP/1.1 200 ")
