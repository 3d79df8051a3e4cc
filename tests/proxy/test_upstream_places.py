"""Where the model server may be (T14, T15), and whether it is who it should be (F9)."""

import shutil
import ssl
import subprocess
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from tests.proxy.front import SCRIPT, chat_body, proxy, settings
from tests.proxy.stub import chat, stub
from tests.proxy.test_keeper import READY, write
from tests.support.process import PYTHON, run
from tests.support.wait import eventually

METADATA = "169.254.7.7"  # not the usual one: where this fails in a cloud, nobody answers there


def _namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _namespaces(), reason="needs the right to make mount namespaces (root)")
def test_where_a_name_leads_is_looked_at(
    tmp_path: Path, state_dir: Path, cache_dir: Path, env: dict[str, str]
) -> None:
    """T14: a name server may say anything. Of two addresses, the second serves where nobody is at the first."""
    hosts, state_file = tmp_path / "hosts", state_dir / "pod_state.json"
    hosts.write_text(f"127.0.0.1 localhost\n{METADATA} meta.test\n::1 two.test\n127.0.0.1 two.test\n")
    bind = f'mount --bind "{hosts}" /etc/hosts && exec "$@"'
    argv: list[str | Path] = ["unshare", "-m", "sh", "-c", bind, "sh", PYTHON, SCRIPT]
    write(state_file, replace(READY, base_url="http://meta.test:80"))
    with (
        stub() as server,
        proxy(
            env | settings(cache_dir, LLMPOD_STATE=str(state_file), LLMPOD_ALLOW_PLAIN_HTTP="true"), argv=argv
        ) as front,
    ):
        reply = front.ask(chat_body("metadata"))
        assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_unreachable")
        assert f"leads to {METADATA}, which is a link-local address" in reply.json["error"]["message"]
        write(state_file, replace(READY, base_url=f"http://two.test:{server.port}"))
        eventually(lambda: front.ask(chat_body("at the second address")).status == 200)


def test_an_address_in_the_state_is_looked_at_too(
    state_dir: Path, cache_dir: Path, env: dict[str, str]
) -> None:
    state_file = state_dir / "pod_state.json"
    write(state_file, replace(READY, base_url=f"https://{METADATA}:80"))
    with proxy(env | settings(cache_dir, LLMPOD_STATE=str(state_file))) as front:
        reply = front.ask(chat_body("metadata"))
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_unreachable")
    assert "link-local" in reply.json["error"]["message"]


REMOTE = "http://192.0.2.1:9"  # nobody's (RFC 5737)


def test_prompts_do_not_leave_this_machine_in_the_clear(tmp_path: Path, env: dict[str, str]) -> None:
    """T15: said at the start, with what to do."""
    ended = run([PYTHON, SCRIPT], env=env | settings(tmp_path / "c", REMOTE))
    assert (ended.code, REMOTE in ended.err, "LLMPOD_ALLOW_PLAIN_HTTP" in ended.err) == (78, True, True)


def test_nor_where_the_state_says_so(state_dir: Path, cache_dir: Path, env: dict[str, str]) -> None:
    state_file = state_dir / "pod_state.json"
    write(state_file, replace(READY, base_url=REMOTE))
    with proxy(env | settings(cache_dir, LLMPOD_STATE=str(state_file))) as front:
        reply = front.ask(chat_body("secret"))
        error = reply.json["error"]
        assert (reply.status, error["code"]) == (502, "upstream_unreachable")
        assert "has no TLS" in error["message"]
        assert "no TLS" in front.ask(chat_body("other")).json["error"]["message"], (
            "each time, not only at first"
        )


def test_unless_that_is_allowed(cache_dir: Path, env: dict[str, str]) -> None:
    """As a trusted network may want it; the log says what it means, and so it does of no other address."""
    allowed = {"LLMPOD_ALLOW_PLAIN_HTTP": "true", "LLMPOD_CONNECT_SECONDS": "0.2"}
    with proxy(env | settings(cache_dir, REMOTE, **allowed)) as front:
        assert "plain_upstream" in [line["event"] for line in front.logs()]
        assert "no TLS" not in front.ask(chat_body("anybody?")).json["error"]["message"]
    with proxy(env | settings(cache_dir, "http://localhost:9", **allowed)) as front:
        assert "plain_upstream" not in [line["event"] for line in front.logs()]


# --- who -------------------------------------------------------------------------------------------------------------
def _server_context(leaf: trustme.LeafCert, *, old: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    if old:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that it is outdated is the point
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    return context


def test_f9_who_cannot_prove_itself_gets_nothing(
    cache_dir: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    """F9: 502 ``upstream_tls``, and no request in spite of it; test_serve.py has the unknown authority."""
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    here = authority.issue_cert("localhost")
    faults = {
        "expired": _server_context(authority.issue_cert("localhost", not_after=yesterday)),
        "mismatch": _server_context(authority.issue_cert("elsewhere.test")),
        "protocol version": _server_context(here, old=True),
    }
    with stub(tls=_server_context(here)) as server:
        environ = env | settings(cache_dir, f"https://localhost:{server.port}", SSL_CERT_FILE=str(bundle))
        with proxy(environ) as front:
            for word, context in faults.items():
                server.tls = context
                error = (reply := front.ask(chat_body(word))).json["error"]
                assert (reply.status, error["code"]) == (502, "upstream_tls")
                assert word in error["message"].lower().replace("_", " ")
                assert not server.turns
            server.tls = _server_context(here)
            assert front.ask(chat_body("proven")).body == chat("you said proven")
