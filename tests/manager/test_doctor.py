"""`doctor` at a terminal: each finding has a status, what was seen, and a command to type."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from tests.manager.account import Account, account, cron_daemon
from tests.support.install import Install


@pytest.fixture
def ann(install: Install, tmp_path: Path) -> Iterator[Account]:
    found = account(install, tmp_path / "home")
    found.manage("schedule", "install").expect()
    with cron_daemon(found):
        yield found


def lock_of(ann: Account) -> Path:
    return next((ann.install.directory / ".llmpod").iterdir()) / "lock"


@pytest.mark.parametrize(
    ("fault", "status", "words", "mend"),
    [
        ("401", "problem", "401", "new key"),
        ("403", "problem", "403", "new key"),
        ("410", "problem", "410", "git"),
        ("402", "problem", "402", "billing"),
        ("429", "warning", "429", "sleep"),
        ("500", "problem", "500", "curl"),
        ("1010", "problem", "1010", "curl"),
        ("dropped", "problem", "Cannot reach", "curl"),
    ],
)
def test_each_refusal_of_the_api_is_told_apart(
    ann: Account, fault: str, status: str, words: str, mend: str
) -> None:
    ann.install.sim.fault("list", fault, times=2)
    seen = ann.doctor()
    finding = seen.of("api")
    assert (finding["status"], seen.wrong) == (status, ["api"])
    assert words in finding["found"]
    assert mend in finding["mend"]


def test_nothing_is_changed_and_no_pod_is_made(ann: Account) -> None:
    ann.doctor()
    before = {path: path.read_bytes() for path in ann.install.directory.rglob("*") if path.is_file()}
    ann.doctor()
    assert {path: path.read_bytes() for path in ann.install.directory.rglob("*") if path.is_file()} == before
    calls = ann.install.sim.requests()
    assert {call["method"] for call in calls} == {"GET"}
    assert len(calls) == 2, "one listing each"


def test_pods_of_others_are_counted(ann: Account) -> None:
    body = {"name": "somebody-elses", "image": "x/y:1", "gpu": {"id": "NVIDIA L4", "count": 1}}
    ann.install.console("POST", "/v2/pods", body)
    assert ann.doctor().of("pods")["found"] == "0 of this installation, 1 of others"


def test_who_holds_the_lock_and_for_how_long(ann: Account) -> None:
    assert ann.doctor().of("lock")["found"].startswith("free")
    path = lock_of(ann)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{os.getpid()}\n")
        file.flush()
        held = ann.doctor().of("lock")
        assert held["status"] == "ok"
        assert f"held by pid {os.getpid()} (" in held["found"]
        os.utime(path, (time.time() - 1000, time.time() - 1000))
        late = ann.doctor().of("lock")
    assert (late["status"], late["mend"]) == ("warning", f"kill {os.getpid()}")
    assert "16 m" in late["found"]


def test_a_proxy_that_should_run_and_does_not(ann: Account) -> None:
    ann.manage("--no-proxy").expect()
    finding = ann.doctor().of("proxy")
    assert finding["status"] == "warning"
    assert "a pass starts it" in finding["mend"]
    assert ann.doctor("--no-proxy").of("proxy")["status"] == "ok"


def test_a_cache_directory_that_others_may_write(ann: Account) -> None:
    cache = ann.install.directory / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    finding = ann.doctor().of("cache")
    assert (finding["status"], finding["mend"]) == ("problem", f"chmod 700 {cache}")
    cache.rmdir()
    cache.write_text("no directory")
    assert "cache_dir" in ann.doctor().of("cache")["mend"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_cache_directory_of_somebody_else(ann: Account) -> None:
    cache = ann.install.directory / "cache"
    cache.mkdir()
    os.chown(cache, 12345, -1)
    finding = ann.doctor().of("cache")
    assert finding["status"] == "problem"
    assert "12345" in finding["found"]


def certificate(directory: Path, *, expires: datetime | None = None) -> dict[str, object]:
    issued = trustme.CA().issue_cert("localhost", not_after=expires)
    key, cert = directory / "key.pem", directory / "cert.pem"
    issued.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    cert.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    return {"use_https": True, "ssl_cert": str(cert), "ssl_key": str(key)}


def test_tls_files(ann: Account, tmp_path: Path) -> None:
    ann.install.write(**certificate(tmp_path))
    assert ann.doctor().of("tls")["status"] == "ok"
    (tmp_path / "key.pem").chmod(0o644)
    assert ann.doctor().of("tls")["mend"] == f"chmod 600 {tmp_path}/key.pem"
    (tmp_path / "other").mkdir()
    other = certificate(tmp_path / "other")
    ann.install.write(ssl_key=other["ssl_key"])
    mismatch = ann.doctor().of("tls")
    assert (mismatch["status"], "match" in mismatch["found"].lower()) == ("problem", True)
    ann.install.write(**certificate(tmp_path, expires=datetime.now(UTC) - timedelta(days=1)))
    assert "expired" in ann.doctor().of("tls")["found"]
    (tmp_path / "cert.pem").unlink()
    assert "cannot be read" in ann.doctor().of("tls")["found"]


def test_a_pod_without_its_switch_and_one_that_outlived_it(ann: Account) -> None:
    ann.manage("--no-proxy").expect()
    assert ann.doctor().of("switch")["status"] == "ok"
    path = ann.install.directory / "pod_state.json"
    document = json.loads(path.read_text())
    document["models"]["default"]["switch_at"] = 1000.0
    path.write_text(json.dumps(document))
    late = ann.doctor().of("switch")
    assert late["status"] == "problem"
    assert late["mend"].endswith(" --shutdown")
    document["models"]["default"]["switch_at"] = None
    path.write_text(json.dumps(document))
    assert ann.doctor().of("switch")["status"] == "warning"
    ann.install.config["heartbeat_seconds"] = None
    ann.install.path.write_text(json.dumps(ann.install.config))
    assert "heartbeat_seconds is null" in json.dumps(ann.doctor().document)


def test_a_crontab_that_nobody_may_read(ann: Account) -> None:
    ann.program("crontab", '#!/bin/sh\necho "You (ann) are not allowed to use this program" >&2\nexit 1\n')
    finding = ann.doctor().of("schedule")
    assert finding["status"] == "problem"
    assert "not allowed" in finding["found"]


def test_a_damaged_block_and_two_lines(ann: Account) -> None:
    table = ann.table.read_text()
    ann.table.write_text(table.replace("# END llmpod", "# END of llmpod"))
    assert ann.doctor().of("schedule")["mend"] == "crontab -e"
    line = next(line for line in table.splitlines() if line.startswith("*/5"))
    ann.table.write_text(f"{table}{line}\n")
    assert "more than once" in ann.doctor().of("schedule")["found"]
    ann.by_hand(f"{line} --shutdown")
    assert "only shuts down" in ann.doctor().of("schedule")["found"]


def test_for_people_it_is_one_line_a_finding_and_a_mend_below(ann: Account) -> None:
    ann.key_file.chmod(0o644)
    said = ann.manage("doctor").expect(1).out
    assert f"mend: chmod 600 {ann.key_file}" in said
    assert "1 problem(s), 0 warning(s)" in said
    ann.key_file.chmod(0o600)
    assert "0 problem(s), 0 warning(s)" in ann.manage("doctor").expect(0).out


def test_a_missing_configuration_is_no_crash_and_asks_nobody(ann: Account) -> None:
    ann.install.path.unlink()
    seen = ann.doctor()
    assert "There is no" in seen.of("config")["found"]
    assert seen.of("config")["mend"].endswith(" init")
    assert ann.install.sim.requests() == []
