"""What an independent scanner finds at the TLS port: protocols, ciphers, curves and known holes (G25)."""

import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.proxy.front import proxy, settings
from tests.proxy.stub import stub
from tests.proxy.test_edge_tls import issue
from tests.support.process import run
from tests.support.source import ROOT

SSLYZE = ROOT / ".components" / "sslyze" / "bin" / "sslyze"
SCANS = (
    *(
        "--sslv2",
        "--sslv3",
        "--tlsv1",
        "--tlsv1_1",
        "--tlsv1_2",
        "--tlsv1_3",
        "--elliptic_curves",
        "--heartbleed",
    ),
    *("--openssl_ccs", "--compression", "--early_data", "--reneg", "--robot", "--fallback"),
)
OLD = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")
pytestmark = [
    pytest.mark.component,
    pytest.mark.skipif(not SSLYZE.exists(), reason="no sslyze: scripts/components installs it"),
]


@pytest.fixture
def found(cache_dir: Path, tmp_path: Path, env: dict[str, str]) -> dict[str, Any]:
    report = tmp_path / "report.json"
    tls = issue(tmp_path, trustme.CA())
    with stub() as server, proxy(env | settings(cache_dir, server.url, **tls)) as front:
        command = [
            str(SSLYZE),
            *SCANS,
            f"--json_out={report}",
            "--mozilla_config=disable",
            f"localhost:{front.port}",
        ]
        run(command, within=100).expect(0)
    result: dict[str, Any] = json.loads(report.read_text())["server_scan_results"][0]["scan_result"]
    return result


def test_a_scanner_finds_nothing(found: dict[str, Any]) -> None:
    def result(name: str) -> Any:
        assert found[name]["status"] == "COMPLETED", name
        return found[name]["result"]

    def accepted(name: str) -> set[str]:
        suites = result(f"{name}_cipher_suites")["accepted_cipher_suites"]
        return {suite["cipher_suite"]["name"] for suite in suites}

    assert not set().union(*map(accepted, OLD))
    spoken = accepted("tls_1_2") | accepted("tls_1_3")
    assert accepted("tls_1_3")
    assert all(name.startswith(("TLS_ECDHE_", "TLS_AES_", "TLS_CHACHA20_")) for name in spoken)
    assert all("GCM" in name or "CHACHA20" in name for name in spoken)
    assert not result("heartbleed")["is_vulnerable_to_heartbleed"]
    assert not result("openssl_ccs_injection")["is_vulnerable_to_ccs_injection"]
    assert not result("tls_compression")["supports_compression"]
    assert not result("tls_1_3_early_data")["supports_early_data"]
    assert not result("session_renegotiation")["is_vulnerable_to_client_renegotiation_dos"]
    assert result("robot")["robot_result"].startswith("NOT_VULNERABLE")
    assert result("tls_fallback_scsv")["supports_fallback_scsv"] or not accepted("tls_1_2")
