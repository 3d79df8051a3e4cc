"""TLS: what is spoken, the certificate we make ourselves, and its renewal under open connections."""

import contextlib
import datetime as dt
import json
import shutil
import signal
import socket
import ssl
import time
import warnings
from pathlib import Path

import pytest
import trustme

from llmpod.config import expires_at
from tests.proxy.front import Client, Proxy, chat_body, proxy, settings
from tests.proxy.stub import CHAT, chat, stub
from tests.support.forks import Forks
from tests.support.process import PYTHON
from tests.support.source import ROOT
from tests.support.wait import eventually


def issue(folder: Path, authority: trustme.CA, *, days: float = 90) -> dict[str, str]:
    """A certificate for localhost in the files, replaced as a renewal does; returns the proxy's settings for it."""
    end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    issued = authority.issue_cert("localhost", not_after=end)
    fresh = folder / "fresh"
    issued.private_key_pem.write_to_path(fresh)
    fresh.replace(folder / "key.pem")
    fresh.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    fresh.replace(folder / "cert.pem")
    return {"USE_HTTPS": "true", "SSL_CERT": str(folder / "cert.pem"), "SSL_KEY": str(folder / "key.pem")}


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def connect(front: Proxy, context: ssl.SSLContext) -> Client:
    client = Client(front.port)
    client.sock = context.wrap_socket(client.sock, server_hostname="localhost")
    client.fresh_reader()
    return client


def ask(client: Client, text: str) -> bytes:
    client.send("POST", CHAT, json.dumps(chat_body(text)).encode())
    return client.reply().body


def alarms(client: Client) -> list[str]:
    client.send("GET", "/health")
    found: list[str] = client.reply().json["alarms"]
    return found


def serial(client: Client) -> str:
    assert isinstance(client.sock, ssl.SSLSocket)
    return str((client.sock.getpeercert() or {})["serialNumber"])


@pytest.mark.parametrize("by", ["itself", "SIGHUP"])
def test_a_renewed_certificate_is_taken_over(
    cache_dir: Path, tmp_path: Path, env: dict[str, str], by: str
) -> None:
    """No connection is dropped; a pair that does not fit changes nothing; the end of a certificate is announced."""
    authority = trustme.CA()
    context = trusting(authority)
    more = issue(tmp_path, authority, days=3)
    with stub() as server, proxy(env | settings(cache_dir, server.url, **more)) as front:
        assert [line for line in front.logs() if line["event"] == "certificate_expires"]
        with connect(front, context) as old:
            assert ask(old, "before") == chat("you said before")
            first = serial(old)
            (tmp_path / "key.pem").write_text("no key")
            front.process.signal(signal.SIGHUP)
            eventually(lambda: [line for line in front.logs() if line["event"] == "certificate_unusable"])
            with connect(front, context) as same:
                assert serial(same) == first
                unusable, near = alarms(same)
                assert str(tmp_path / "key.pem") in unusable
                assert "expires in" in near
            issue(tmp_path, authority)
            if by == "SIGHUP":
                front.process.signal(signal.SIGHUP)
            eventually(
                lambda: [line for line in front.logs() if line["event"] == "certificate_read"], within=20
            )
            with connect(front, context) as new:
                assert serial(new) != first
                assert ask(new, "after") == chat("you said after")
                assert alarms(new) == []
            assert ask(old, "still") == chat("you said still")


def test_only_what_is_safe_is_spoken(cache_dir: Path, tmp_path: Path, env: dict[str, str]) -> None:
    authority = trustme.CA()
    with (
        stub() as server,
        proxy(env | settings(cache_dir, server.url, **issue(tmp_path, authority))) as front,
    ):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(authority)
            context.minimum_version = context.maximum_version = version
            with connect(front, context) as client:
                assert isinstance(client.sock, ssl.SSLSocket)
                name = (client.sock.cipher() or ("", "", 0))[0]
                assert "GCM" in name or "CHACHA20" in name
                assert client.sock.compression() is None
        for ciphers in ("ECDHE+AES:!AESGCM", "kRSA", "DHE+AESGCM", "ECDHE+AESCCM"):
            context = trusting(authority)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
            _refused(front, context)
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            context = trusting(authority)
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # that it is outdated is the point
                context.minimum_version = context.maximum_version = version
            _refused(front, context)


def _refused(front: Proxy, context: ssl.SSLContext) -> None:
    with (
        socket.create_connection(("127.0.0.1", front.port), 10) as sock,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(sock, server_hostname="localhost")


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl program")
def test_who_says_nothing_is_counted_and_has_to_go(
    cache_dir: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    """Found by a review: before its handshake a connection stood outside all limits, for a minute."""
    authority = trustme.CA()
    limits = {"LLMPOD_MAX_CONNECTIONS": "3", "LLMPOD_HEADER_SECONDS": "2"}
    with proxy(
        env | settings(cache_dir, "http://127.0.0.1:9", **limits) | issue(tmp_path, authority)
    ) as front:
        silent = [socket.create_connection(("127.0.0.1", front.port), 20) for _ in range(6)]
        silent[0].sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a handshake
        ended = [one.recv(1) for one in reversed(silent)]  # three at once, the others when their time is over
        assert ended == [b""] * 6
        with contextlib.closing(connect(front, trusting(authority))) as client:
            client.send("GET", "/livez")
            assert client.reply().status == 200
            silent.append(socket.create_connection(("127.0.0.1", front.port), 20))
            client.send("GET", "/metrics", headers={"Accept": "application/json"})
            assert client.reply().json["connections_refused_total"] == 3
        front.process.stop()
        assert front.process.code == 0
        for one in silent:
            one.close()


def test_a_certificate_of_our_own(cache_dir: Path, tmp_path: Path, env: dict[str, str], forks: Forks) -> None:
    config = tmp_path / "pod_config.json"
    config.write_text(json.dumps({"model": "a/b", "allowed_hosts": ["my-box.lan"]}))

    def tls(*words: str, code: int = 0) -> str:
        ended = forks.run([PYTHON, ROOT / "manage_pod.py", "--config", str(config), "tls", *words], env=env)
        assert (ended.code, "Traceback" in ended.err) == (code, False), ended.err
        return ended.out + ended.err

    assert "tls init" in tls("show", code=78)
    assert "no host name" in tls("init", "--name", "a,IP:1.2.3.4", code=78)
    tls("init", "--name", "10.1.2.3")
    folder = tmp_path / ".llmpod/pod_state/tls"
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == dict.fromkeys(["ca.key", "ca.pem", "cert.pem", "key.pem"], 0o600)
    days = ((expires_at(folder / "cert.pem") or 0) - time.time()) / 86400
    assert 89 < days < 91
    assert "90 days left" in tls("show") or "89 days left" in tls("show")
    authority = (folder / "ca.pem").read_bytes()
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    more = {"USE_HTTPS": "1", "SSL_CERT": str(folder / "cert.pem"), "SSL_KEY": str(folder / "key.pem")}
    with stub() as server, proxy(env | settings(cache_dir, server.url, **more)) as front:
        with connect(front, context) as client:
            assert ask(client, "own") == chat("you said own")
            first = serial(client)
            assert isinstance(client.sock, ssl.SSLSocket)
            peer = client.sock.getpeercert() or {}
            names = {str(entry[1]) for entry in peer["subjectAltName"]}
            assert {"localhost", "127.0.0.1", "my-box.lan", "10.1.2.3"} <= names
        tls("init")
        front.process.signal(signal.SIGHUP)
        eventually(lambda: [line for line in front.logs() if line["event"] == "certificate_read"])
        with connect(front, context) as client:
            assert serial(client) != first
    assert (folder / "ca.pem").read_bytes() == authority
