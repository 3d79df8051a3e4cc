"""Who may call: everybody here, the same user, or who has a key; and where a proxy refuses to be at all."""

import base64
import itertools
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmpod.config import KEYS_FILE
from llmpod.proxy import peer
from llmpod.proxy.access import ROUTES, Need, need
from tests.proxy.front import Client, Proxy, chat_body, proxy, settings
from tests.proxy.keys import KEYS, call, entry, write_keys
from tests.proxy.stub import CHAT, Stub, stub
from tests.support.source import ROOT
from tests.support.wait import eventually

ALL = [
    entry("infer"),
    entry("metrics"),
    entry("admin"),
    entry("expired", expires=time.time() - 10),
    entry("coder", models=("coder",)),
    entry("second"),
]


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Stub, Path]]:
    folder = tmp_path_factory.mktemp("keyed")
    path = folder / KEYS_FILE
    write_keys(path, *ALL)
    environ = {"LLMPOD_AUTH": "keys", "LLMPOD_KEYS_FILE": str(path), "ENABLE_PROFILING": "1"}
    with (
        stub() as server,
        proxy({"PATH": "/usr/bin:/bin"} | settings(folder / "c", server.url, **environ)) as front,
    ):
        yield front, server, path


def forms(key: str) -> list[dict[str, str]]:
    """Every field in which a client may bring a key."""
    basic = base64.b64encode(f"anybody:{key}".encode()).decode()
    return [
        {"Authorization": f"Bearer {key}"},
        {"authorization": f"bearer  {key}"},
        {"X-Api-Key": key},
        {"X-API-Secret": key},
        {"Authorization": f"Basic {basic}"},
        {"Authorization": f"Bearer {key}", "x-api-key": ""},
    ]


MAY: dict[str, set[Need]] = {
    "infer": {Need.INFER},
    "metrics": {Need.METRICS},
    "admin": {Need.INFER, Need.METRICS, Need.ADMIN},
    "expired": set(),
}


POSTED = ("/admin/start", "/admin/stop", "/admin/restart", "/admin/cancel")  # here asked by GET

READING = ("GET", "HEAD", "POST")
CHANGING = ("PUT", "PATCH", "DELETE")


def test_every_route_and_what_it_needs(keyed: tuple[Proxy, Stub, Path]) -> None:
    """The whole table, and every route the application has is in it: a new one is closed until it is listed."""
    assert {
        "/": Need.NOTHING,
        "/livez": Need.NOTHING,
        "/healthz": Need.NOTHING,
        "/readyz": Need.NOTHING,
        "/health": Need.NOTHING,
        "/metrics": Need.METRICS,
        "/dashboard": Need.METRICS,
        "/routes": Need.METRICS,
        "/stats": Need.METRICS,
        "/debug/cache": Need.ADMIN,
        "/admin/inflight": Need.ADMIN,
        "/admin/starts": Need.ADMIN,
        **dict.fromkeys(POSTED, Need.ADMIN),
    } == ROUTES
    for path in ("/v1/anything", "/coder/v1/anything", "/score"):
        assert {need(method, path) for method in READING} == {Need.INFER}
        assert {need(method, path) for method in (*CHANGING, "MERGE")} == {Need.ADMIN}
    source = "".join((ROOT / f"llmpod/proxy/{name}.py").read_text() for name in ("ops", "admin"))
    served = {line.split('"')[1] for line in source.splitlines() if "@router." in line}
    assert served == set(ROUTES)


@pytest.mark.parametrize("who", [None, "wrong", *MAY])
def test_matrix_of_routes_forms_and_rights(keyed: tuple[Proxy, Stub, Path], who: str | None) -> None:
    front, server, _ = keyed
    server.turns.clear()
    refused = 0
    for path, wanted in [*ROUTES.items(), (CHAT, Need.INFER), ("/v1/models", Need.INFER)]:
        for headers in [{}] if who is None else forms(KEYS.get(who, "sk-local-wrong")):
            reply = call(front, path, headers)
            if wanted is Need.NOTHING or wanted in MAY.get(who or "", set()):
                good = {"/": (404,), "/readyz": (200, 503), **dict.fromkeys(POSTED, (405,))}.get(path, (200,))
                assert reply.status in good, (path, headers)
                continue
            refused += 1
            known = who in MAY and who != "expired"
            assert reply.status in ((403,) if known else (401, 429)), (path, headers)
            if reply.status == 401:
                assert reply.headers["www-authenticate"].startswith("Bearer")
                assert reply.json["error"]["type"] == "authentication_error"
    assert bool(server.turns) == (Need.INFER in MAY.get(who or "", set()))
    assert refused or who == "admin"


@pytest.mark.parametrize("who", [None, "wrong", "coder", *MAY])
def test_who_may_change_and_delete_on_the_model_server(
    keyed: tuple[Proxy, Stub, Path], who: str | None
) -> None:
    """Found by a review: whoever could ask for an answer could delete what is there, by the owner's authority."""
    front, server, _ = keyed
    server.turns.clear()
    headers = {} if who is None else {"x-api-key": KEYS.get(who, "sk-local-wrong")}
    for path, method in itertools.product(("/v1/models/z", "/v1/files/f", "/coder/v1/x", "/score"), CHANGING):
        with Client(front.port) as client:
            client.send(method, path, headers=headers)
            reply = client.reply()
        if who == "admin":
            assert reply.status not in (401, 403, 429), (method, path)
            continue
        assert reply.status in ((403,) if who in KEYS and who != "expired" else (401, 429)), (method, path)
    asked = {turn.method for turn in server.turns}
    assert asked == (set(CHANGING) if who == "admin" else set())


def spelled(key: str) -> list[bytes]:
    """One line for each way to bring a key."""
    basic = base64.b64encode(f"anybody:{key}".encode()).decode()
    lines = (f"authorization: Bearer {key}", f"authorization: Basic {basic}")
    return [f"{line}\r\n".encode() for line in (*lines, f"x-api-key: {key}", f"x-api-secret: {key}")]


@pytest.mark.parametrize("path", [*ROUTES, CHAT, "/v1/models"])
def test_two_keys_are_one_too_many(keyed: tuple[Proxy, Stub, Path], path: str) -> None:
    """Every pair of fields, the same one twice included, with two keys or the same one, on every route."""
    front, server, _ = keyed
    server.turns.clear()
    body = json.dumps(chat_body()).encode() if path == CHAT else b""
    kind = b"content-type: application/json\r\n" if body else b""
    for other in ("admin", "second"):
        for one, two in itertools.product(spelled(KEYS["admin"]), spelled(KEYS[other])):
            with Client(front.port) as client:
                head = b"%b %b HTTP/1.1\r\nhost: localhost\r\n" % (b"POST" if body else b"GET", path.encode())
                length = b"content-length: %d\r\n\r\n" % len(body)
                client.sock.sendall(head + kind + one + two + length + body)
                reply = client.reply()
            assert (reply.status, reply.json["error"]["code"]) == (400, "two_credentials"), (one, two)
    assert not server.turns


def test_a_key_of_ours_goes_no_further(keyed: tuple[Proxy, Stub, Path]) -> None:
    front, server, _ = keyed
    server.turns.clear()
    for number, headers in enumerate(forms(KEYS["infer"])):
        assert call(front, CHAT, headers, f"further {number}").status == 200
    assert len(server.turns) == len(forms(""))
    for turn in server.turns:
        assert not {"authorization", "x-api-key", "x-api-secret"} & set(turn.headers)
        assert KEYS["infer"] not in repr(turn.headers)
    said = (
        front.process.err
        + front.process.out
        + json.dumps(call(front, "/dashboard", forms(KEYS["admin"])[0]).json)
    )
    assert not [key for key in KEYS.values() if key in said]


def test_each_key_has_its_own_part_of_the_cache(keyed: tuple[Proxy, Stub, Path]) -> None:
    front, _, _ = keyed
    caches = [
        call(front, CHAT, {"Authorization": f"Bearer {KEYS[who]}"}, "mine").cache
        for who in ("infer", "infer", "second", "second")
    ]
    assert caches == ["MISS", "HIT", "MISS", "HIT"]


def test_a_key_for_one_model(keyed: tuple[Proxy, Stub, Path]) -> None:
    front, server, _ = keyed
    server.turns.clear()
    for model, status in (("coder", 200), ("m", 403), ("coder", 200), ("m", 403)):
        reply = front.ask(
            {**chat_body("one model"), "model": model}, headers={"Authorization": f"Bearer {KEYS['coder']}"}
        )
        assert reply.status == status
    assert len(server.turns) == 1


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "GET"])
def test_what_a_key_asks_for_is_asked_by_post(keyed: tuple[Proxy, Stub, Path], method: str) -> None:
    """Found by a review: any other method with a body passed by the models and the budgets of a key."""
    front, server, _ = keyed
    server.turns.clear()
    headers = {"Authorization": f"Bearer {KEYS['coder' if method in READING else 'admin']}"}
    assert front.ask(chat_body(model="other"), method=method, headers=headers).status == 405
    assert not server.turns


def test_health_tells_a_stranger_little(keyed: tuple[Proxy, Stub, Path]) -> None:
    front, server, _ = keyed
    stranger, friend = call(front, "/health", {}).json, call(front, "/health", forms(KEYS["infer"])[0]).json
    assert str(server.port) not in json.dumps({name: stranger[name] for name in stranger if name != "pid"})
    assert stranger["status"] == friend["status"]
    assert friend["endpoint"] == server.url


def test_guessing_is_slowed_down_and_stops_nobody_else(keyed: tuple[Proxy, Stub, Path]) -> None:
    front, server, _ = keyed
    server.turns.clear()
    guessers = [Client(front.port) for _ in range(60)]
    for number, guesser in enumerate(guessers):
        guesser.send("GET", "/v1/models", headers={"x-api-key": f"guess {number}"})
    statuses = [guesser.reply().status for guesser in guessers]
    for guesser in guessers:
        guesser.close()
    assert 429 in statuses
    assert set(statuses) <= {401, 429}
    assert call(front, CHAT, {"x-api-key": KEYS["infer"]}, "still served").status == 200
    assert len(server.turns) == 1


def test_keys_come_and_go_while_it_runs(keyed: tuple[Proxy, Stub, Path]) -> None:
    """Also on a connection that is open, for a header it has sent before."""
    front, _, path = keyed
    headers = {"Authorization": f"Bearer {KEYS['second']}"}
    body = json.dumps(chat_body("kept open")).encode()
    client = Client(front.port)
    for _ in range(3):
        client.send("POST", CHAT, body, headers)
        assert client.reply().status == 200
    write_keys(path, *[key for key in ALL if key.name != "second"])
    eventually(lambda: call(front, CHAT, headers).status == 401)
    client.send("POST", CHAT, body, headers)
    assert client.reply().status in (401, 429)
    client.close()
    path.write_text("{")
    eventually(lambda: [line for line in front.logs() if line["event"] == "keys_unreadable"])
    assert call(front, CHAT, forms(KEYS["infer"])[0]).status == 200
    write_keys(path, *ALL)
    eventually(lambda: call(front, CHAT, headers).status == 200)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_the_same_user(cache_dir: Path, env: dict[str, str]) -> None:
    """The proxy runs as `nobody`: root may, another user may not, and `nobody` may."""
    ask = (
        "import sys,urllib.request,urllib.error\n"
        "def get(p):\n"
        " try: return urllib.request.urlopen('http://127.0.0.1:'+sys.argv[1]+p).status\n"
        " except urllib.error.HTTPError as e: return e.code\n"
        "print(get('/livez'), get('/metrics'), get('/v1/models'))"
    )

    def as_user(uid: int, port: int) -> str:
        argv = ["setpriv", f"--reuid={uid}", "--clear-groups", "/usr/bin/python3", "-c", ask, str(port)]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    with stub() as server, proxy(env | settings(cache_dir, server.url, LLMPOD_AUTH="same-user")) as front:
        assert as_user(os.getuid(), front.port) == "200 200 200"
        assert as_user(65534, front.port) == "200 403 403"
        assert as_user(12345, front.port) == "200 403 403"
        assert len(server.turns) == 1


@pytest.mark.skipif(not peer.known(), reason="this system does not say whose a connection is")
def test_who_has_hung_up_is_nobody() -> None:
    """Not root, whose number the kernel shows for a socket that its program has closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        ends = peer.Ends(*client.getsockname(), *listener.getsockname())
        assert peer.owner(ends) == os.getuid()
        client.sendall(b"asked, and gone")
        client.close()
        assert peer.owner(ends) is None
        assert not peer.is_same_user(ends)
        accepted.close()
