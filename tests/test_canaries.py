"""G20: what each test of a whole process looks for at its end. Here: that it would find it, and the hardest life."""

import base64
import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import trustme

from llmpod.config import Scope
from llmpod.lifecycle.state import State, Trouble
from llmpod.lifecycle.store import Store
from llmpod.sim.launch import Simulator
from llmpod.veil import Veil
from tests.proxy.front import Client, Proxy, chat_body, proxy, settings
from tests.proxy.keys import KEYS, entry, write_keys
from tests.proxy.stub import CHAT, Turn, stub
from tests.proxy.test_keeper import READY
from tests.support import procfs
from tests.support.canaries import Canaries
from tests.support.install import FAST, Install
from tests.support.process import PYTHON, running
from tests.support.rawserver import raw_server

LEAKY = Path(__file__).parent / "proxy" / "leaky.py"


@pytest.fixture
def leaking(tmp_path: Path, env: dict[str, str]) -> dict[str, str]:
    """The environment of a proxy with all six kinds of secret; `proxy` itself plants the first two."""
    key = tmp_path / "key.pem"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(key)
    store = Store(tmp_path / "state" / "pod_state.json")
    store.save(State(records={"default": READY}))
    for name, value in (("caller", KEYS["infer"]), ("pod", store.pod_key(READY.name).reveal())):
        (tmp_path / name).write_text(f"{value}\n\n")
    more = {"LLMPOD_STATE": str(store.state_file), "LLMPOD_KEYS_FILE": str(tmp_path / "keys.json")}
    secrets = {"RUNPOD_ENDPOINT_KEY": Canaries.fresh()["API_KEY"], "SSL_KEY": str(key)}
    return env | settings(tmp_path / "cache", **more, **secrets)


KINDS = {
    "RUNPOD_API_KEY": "RUNPOD_API_KEY",
    "HF_TOKEN": "HF_TOKEN",
    "RUNPOD_ENDPOINT_KEY": "endpoint key",
    "caller": "caller key infer",
    "pod": "pod key of",
    "key.pem": "TLS key, line",
}


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("where", ["log", "Basic"])
def test_each_kind_of_secret_is_found(
    leaking: dict[str, str], tmp_path: Path, source: str, where: str
) -> None:
    """The negative control: a proxy that tells it fails its test."""
    given = {"LEAK": where, "LEAK_FROM": source if source.isupper() else str(tmp_path / source)}
    found = pytest.raises(AssertionError, match=f"the {KINDS[source]}.* in the (log|output)")
    with found, proxy(leaking | given, argv=[PYTHON, "-S", LEAKY]):
        pass


@pytest.mark.parametrize(
    ("leak", "where"),
    [
        *(
            ("output", "the output"),
            ("hex", "the output"),
            ("page", "/metrics"),
            ("file", "the file .*entry"),
        ),
        *(("argv", "the cmdline of process"), ("environ", "the environ of process")),
    ],
)
def test_each_place_is_looked_at(leaking: dict[str, str], leak: str, where: str) -> None:
    if leak in ("argv", "environ") and not procfs.available():
        pytest.skip("needs /proc")
    given = {"LEAK": leak, "LEAK_FROM": "RUNPOD_ENDPOINT_KEY"}
    found = pytest.raises(AssertionError, match=f"the endpoint key in {where}")
    with found, proxy(leaking | given, argv=[PYTHON, "-S", LEAKY]):
        pass


def test_a_proxy_that_tells_nothing_passes(leaking: dict[str, str]) -> None:
    given = {"LEAK": "nowhere", "LEAK_FROM": "RUNPOD_ENDPOINT_KEY"}
    with proxy(leaking | given, argv=[PYTHON, "-S", LEAKY]):
        pass


# --- the proxy -------------------------------------------------------------------------------------------------------
def _talkative(turn: Turn) -> None:
    """A model server that repeats whatever it was told, where it can."""
    told = turn.headers.get("authorization", "")
    basic = base64.b64encode(told.encode()).decode()
    body = {"detail": f"{told} is wrong; {basic}; {json.dumps(told)}", "error": told}
    turn.reply(json.dumps(body).encode(), f"x-request-id: {turn.headers['host']}", status="401 X")


@pytest.fixture
def guarded(tmp_path: Path, env: dict[str, str]) -> Iterator[tuple[Proxy, ssl.SSLContext]]:
    """A proxy with keys, TLS and an endpoint that has a key of its own, and what trusts it."""
    authority, keys = trustme.CA(), tmp_path / "keys.json"
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    write_keys(keys, entry("infer"), entry("metrics"), entry("admin", scopes=tuple(Scope)))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    more = {
        "RUNPOD_ENDPOINT_KEY": Canaries.fresh()["API_KEY"],
        "LLMPOD_AUTH": "keys",
        "LLMPOD_KEYS_FILE": str(keys),
        "USE_HTTPS": "true",
        "SSL_CERT": str(tmp_path / "cert.pem"),
        "SSL_KEY": str(tmp_path / "key.pem"),
        "ENABLE_PROFILING": "true",
    }
    with stub() as server, proxy(env | settings(tmp_path / "cache", server.url, **more)) as front:
        server.script = _talkative
        yield front, context


def test_a_proxy_with_every_secret_shows_none(guarded: tuple[Proxy, ssl.SSLContext], tmp_path: Path) -> None:
    """Right and wrong callers, keys where they do not belong, a server that repeats its own, and all pages."""
    front, context = guarded
    infer, admin = KEYS["infer"], KEYS["admin"]
    basic = base64.b64encode(f"me:{infer}".encode()).decode()
    bearer = {"Authorization": f"Bearer {infer}"}
    calls: list[tuple[str, str, dict[str, str]]] = [
        ("POST", CHAT, bearer),
        ("POST", CHAT, {"Authorization": f"Basic {basic}"}),
        ("POST", CHAT, {**bearer, "X-API-Key": admin}),
        ("POST", CHAT, {"Authorization": infer}),
        ("POST", CHAT, {"X-API-Key": infer[:-1]}),
        ("POST", f"/v1/{infer}?key={infer}", bearer),
        ("GET", f"/v1/models/{infer}", bearer),
        ("GET", f"/{infer}", {}),
        ("PATCH", f"/metrics?token={infer}", bearer),
        *(
            ("GET", path, {"X-API-Key": admin})
            for path in ("/metrics", "/dashboard", "/health", "/debug/cache")
        ),
    ]
    known: dict[str, str | Path | None] = {"caller key": infer, "admin key": admin}
    secrets = Canaries({}).plus(**known | {"TLS key": tmp_path / "key.pem"})
    statuses = []
    for method, path, headers in calls:
        client = Client(front.port)
        client.sock = context.wrap_socket(client.sock, server_hostname="localhost")
        with client:
            client.fresh_reader()
            client.send(method, path, json.dumps(chat_body()).encode() if method == "POST" else b"", headers)
            reply = client.reply(method)
        statuses.append(reply.status)
        assert not secrets.seen_in(str(reply.headers).encode() + reply.body), (method, path)
        assert (
            b"sk-Canary" not in reply.body
        )  # the endpoint's own, which `proxy` looks for in all other places
    assert {200, 400, 401} <= set(statuses)
    if procfs.available():
        assert "Max core file size        1 " in (procfs.PROC / str(front.process.pid) / "limits").read_text()


# --- the manager -----------------------------------------------------------------------------------------------------
def test_a_provider_that_repeats_the_key_makes_nobody_show_it(
    state_dir: Path, sim: Simulator, env: dict[str, str]
) -> None:
    """`Install.manage` looks at all that is printed, `sightings` at the files; it comes back in every spelling."""

    def talk(connection: socket.socket, _over: Event) -> None:
        request = connection.recv(65536).decode("latin-1")
        told = next(line for line in request.split("\r\n") if line.lower().startswith("authorization"))
        key = told.rpartition(" ")[2]
        forms = (
            key,
            key.encode().hex(),
            *(base64.b64encode(b"x" * n + key.encode()).decode() for n in range(3)),
        )
        body = json.dumps({"error": " ".join(forms), "message": " ".join(forms)}).encode()
        head = f"HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)

    sim.set(**FAST)
    with raw_server(talk) as url:
        install = Install(state_dir, sim, env)
        install.write(runpod_api_url=url)
        said = [
            install.manage(*words) for words in ((), ("--verbose",), ("doctor",), ("status",), ("--dry-run",))
        ]
    assert "***" in "".join(one.out + one.err for one in said)
    assert install.sightings() == []


class Leaking(Install):
    """An installation whose manager prints the key."""

    def argv(self, *arguments: str) -> list[str]:
        return [PYTHON, "-S", "-c", "import os; print(os.environ['RUNPOD_API_KEY'].encode().hex())"]


def test_a_leak_of_the_manager_is_found(state_dir: Path, sim: Simulator, env: dict[str, str]) -> None:
    """The negative control of the above: a file that holds the key, a command that says it, a child that has it."""
    install = Leaking(state_dir, sim, env)
    with pytest.raises(AssertionError, match=r"cloud key.* in what"):
        install.manage("status")
    leak = state_dir / "leak.log"
    leak.write_text(base64.b64encode(b"user:" + sim.key.encode()).decode())
    assert install.sightings() == [f"the cloud key in the file {leak}"]
    leak.unlink()
    (state_dir / ".llmpod").mkdir()
    child = {"LLMPOD_STATE": str(state_dir / "pod_state.json"), "LEFT": sim.key}
    if procfs.available():
        with running(
            [PYTHON, "-S", "-c", "import time; print('up', flush=True); time.sleep(60)"], env=child
        ) as program:
            program.says("up")
            assert install.sightings() == [f"the cloud key in the environ of process {program.pid}"]


def test_what_others_say_is_noted_without_the_key(state_dir: Path) -> None:
    """A provider's words stand in the state: why a machine failed, why passes fail."""
    secret = Canaries.fresh()["RUNPOD_API_KEY"]
    store = Store(state_dir / "pod_state.json", veil=Veil([secret]))
    said = f"{secret}, {base64.b64encode(f'u:{secret}'.encode()).decode()}"
    store.save(State(records={"default": replace(READY, error=said)}, trouble=Trouble("x", said, since=1.0)))
    assert Canaries({"key": secret}).seen_in(store.state_file.read_bytes()) == set()
    assert store.load().records["default"].error == "***, ***"
