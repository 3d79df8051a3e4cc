"""The process: how it starts, refuses to start, and ends while answers are under way."""

import json
import signal
import socket
import ssl
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import trustme

from tests.proxy.front import SCRIPT, Client, chat_body, proxy, settings
from tests.proxy.stub import CHAT, Turn, chat, frames, halfway, stub
from tests.support.process import PYTHON, run, running
from tests.support.wait import eventually


def ask(client: Client, text: str) -> None:
    client.send("POST", CHAT, json.dumps(chat_body(text, stream=True)).encode())


def endless(turn: Turn) -> None:
    turn.stream()
    turn.chunk(frames("a")[0])
    turn.wait_gone(within=10)


def _hears(pid: int, number: int) -> bool:
    """Whether a process has a word of its own for a signal (proc(5), SigCgt)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


def test_a_stream_under_way_ends_well(cache_dir: Path, env: dict[str, str]) -> None:
    go = threading.Event()

    with stub() as server, proxy(env | settings(cache_dir, server.url)) as front, front.client() as client:
        server.script = halfway(go)
        ask(client, "drain")
        response = client.open_reply()
        assert response.read1(65536) == frames("a")[0]
        front.process.signal(signal.SIGTERM)
        eventually(lambda: _refused(front.port))
        go.set()
        reply = client.rest(response)
        assert (reply.body, reply.cut) == (b"".join(frames("a")[1:]), False)
        assert front.process.wait() == 0
    with proxy(env | settings(cache_dir, server.url)) as again:
        eventually(lambda: again.ask(chat_body("drain", stream=True)).cache == "HIT")


def test_who_is_told_to_stop_while_it_starts_does_so_quietly(cache_dir: Path, env: dict[str, str]) -> None:
    with running([PYTHON, SCRIPT], env=env | settings(cache_dir, "http://127.0.0.1:9")) as process:
        eventually(lambda: _hears(process.pid, signal.SIGTERM), within=15, every=0.0005)
        process.signal(signal.SIGTERM)
        assert process.wait(within=15) == 0
        assert [line for line in process.err.splitlines() if '"level": "error"' in line] == []


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_what_outlasts_the_grace_is_told(cache_dir: Path, env: dict[str, str], first: signal.Signals) -> None:
    environ = env | settings(cache_dir, LLMPOD_DRAIN_SECONDS="1")
    with (
        stub() as server,
        proxy(environ | {"RUNPOD_ENDPOINT": server.url}) as front,
        front.client() as client,
    ):
        server.script = endless
        ask(client, "too long")
        response = client.open_reply()
        assert response.read1(65536)
        began = time.monotonic()
        front.process.signal(first)
        reply = client.rest(response)
        assert reply.cut
        assert b'"error"' in reply.body
        assert front.process.wait(within=3) == 0
        assert 0.9 < time.monotonic() - began < 2.5


def test_a_second_signal_means_now(cache_dir: Path, env: dict[str, str]) -> None:
    with stub() as server, proxy(env | settings(cache_dir, server.url)) as front, front.client() as client:
        server.script = endless
        ask(client, "now")
        client.open_reply()
        began = time.monotonic()
        front.process.signal(signal.SIGTERM)
        eventually(lambda: _refused(front.port))
        front.process.signal(signal.SIGTERM)
        assert front.process.wait(within=3) == 0
        assert time.monotonic() - began < 3


def test_idle_connections_do_not_hold_up_the_end(cache_dir: Path, env: dict[str, str]) -> None:
    with stub() as server, proxy(env | settings(cache_dir, server.url)) as front, front.client() as client:
        client.send("GET", "/livez")
        assert client.reply().status == 200
        began = time.monotonic()
        assert front.process.stop() == 0
        assert time.monotonic() - began < 2


def test_a_taken_port(cache_dir: Path, env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run([PYTHON, SCRIPT], env=env | settings(cache_dir, "http://127.0.0.1:1", PORT=port))
    assert ended.code == 98
    assert port in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({}, "RUNPOD_ENDPOINT"),
        ({"RUNPOD_ENDPOINT": "ftp://x"}, "http"),
        ({"RUNPOD_ENDPOINT": "https://x", "PORT": "many"}, "PORT"),
        ({"RUNPOD_ENDPOINT": "https://x", "USE_HTTPS": "true"}, "SSL_CERT"),
        (
            {"RUNPOD_ENDPOINT": "https://x", "USE_HTTPS": "1", "SSL_CERT": "/no/cert", "SSL_KEY": "/no/key"},
            "/no/cert",
        ),
    ],
)
def test_wrong_settings_are_one_clear_line(
    tmp_path: Path, env: dict[str, str], wrong: dict[str, str], word: str
) -> None:
    here = tmp_path / "elsewhere"
    here.mkdir()
    ended = run([PYTHON, SCRIPT], env=env | {"CACHE_DIR": str(tmp_path / "c")} | wrong, cwd=here)
    if not wrong and ended.code == 0:
        pytest.skip("a pod_state.json stands beside the script")
    assert ended.code == 78
    assert word in ended.err
    assert "Traceback" not in ended.err


def test_any_directory_and_flags_win(cache_dir: Path, tmp_path: Path, env: dict[str, str]) -> None:
    environ = env | settings(cache_dir, "http://127.0.0.1:1", PORT="1")
    with running(
        [PYTHON, SCRIPT, "--port", "0", "--log-level", "INFO"], env=environ, cwd=tmp_path
    ) as process:
        process.says("listening")


def test_https(cache_dir: Path, tmp_path: Path, env: dict[str, str]) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(key)
    for part in issued.cert_chain_pems:
        part.write_to_path(cert, append=True)
    more = {"USE_HTTPS": "true", "SSL_CERT": str(cert), "SSL_KEY": str(key)}
    with stub() as server, proxy(env | settings(cache_dir, server.url, **more)) as front:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        for body in (chat_body("tls"), chat_body("tls")):
            client = Client(front.port)
            client.sock = context.wrap_socket(client.sock, server_hostname="localhost")
            with client:
                client.fresh_reader()
                client.send("POST", CHAT, json.dumps(body).encode())
                assert client.reply().body == chat("you said tls")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(old)
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that it is outdated is the point
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection(("127.0.0.1", front.port)) as sock,
            pytest.raises((ssl.SSLError, OSError)),
        ):
            old.wrap_socket(sock, server_hostname="localhost")


@pytest.mark.parametrize("issuer", ["known", "stranger"])
def test_tls_upstream_is_verified(cache_dir: Path, tmp_path: Path, env: dict[str, str], issuer: str) -> None:
    """F9: a name that nobody vouches for is a 502; nothing is ever sent in spite of that."""
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    (authority if issuer == "known" else stranger).cert_pem.write_to_path(bundle)
    with stub(tls=context) as server:
        environ = (
            env | settings(cache_dir, f"https://localhost:{server.port}") | {"SSL_CERT_FILE": str(bundle)}
        )
        with proxy(environ) as front:
            replies = [front.ask(chat_body(f"tls {n}")) for n in range(2)]
        if issuer == "known":
            assert [r.body for r in replies] == [chat("you said tls 0"), chat("you said tls 1")]
            assert server.connections == 1
        else:
            assert {(r.status, r.json["error"]["code"]) for r in replies} == {(502, "upstream_tls")}
            assert "TLS" in replies[0].json["error"]["message"]
            assert not server.turns


def test_a_python_without_the_libraries_says_what_to_do(tmp_path: Path, env: dict[str, str]) -> None:
    """A copy of the entry point with no .venv beside it, run by a Python that sees no installed package."""
    home = _bare_copy(tmp_path)
    ended = run([_bare_python(), "-S", "-I", str(home / "run.py")], env=env, cwd=tmp_path)
    assert ended.code == 1
    assert "make install" in ended.err
    assert "Traceback" not in ended.err


def test_and_takes_the_one_that_has_them(tmp_path: Path, env: dict[str, str]) -> None:
    home = _bare_copy(tmp_path)
    (home / ".venv" / "bin").mkdir(parents=True)
    (home / ".venv" / "bin" / "python").write_text('#!/bin/sh\necho "again: $*"\n')
    (home / ".venv" / "bin" / "python").chmod(0o755)
    ended = run([_bare_python(), "-S", "-I", str(home / "run.py"), "--port", "1"], env=env, cwd=tmp_path)
    assert ended.out == f"again: {home / 'run.py'} --port 1\n"


def _bare_copy(tmp_path: Path) -> Path:
    home = tmp_path / "copy"
    (home / "llmpod").mkdir(parents=True)
    for name in ("__init__.py", "_venv.py"):
        (home / "llmpod" / name).write_bytes((SCRIPT.parent / "llmpod" / name).read_bytes())
    text = SCRIPT.read_text()
    (home / "run.py").write_text(f"import sys\nsys.path.insert(0, {str(home)!r})\n{text}")
    return home


def _bare_python() -> str:
    return str(Path(sys.executable).resolve())


def _refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionError:
        return True
    return False
