"""What gets installed is bounded, pinned with hashes, and free of known holes."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.support.source import ROOT

# The first release without a published hole that matters here, and the hole.
SAFE_SINCE = {
    "starlette": "1.0.1",  # CVE-2026-48710: the path taken from the Host header
    "h11": "0.16.0",  # CVE-2025-43859: chunked framing accepted too much, request smuggling
    "urllib3": "2.7.0",  # decompression bombs
}
LOCKS = {"requirements.lock": "requirements.txt", "requirements-dev.lock": "requirements-dev.txt"}


def requirements(name: str) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return {found.name: found for line in lines if line for found in [Requirement(line)]}


def pins(text: str) -> dict[str, tuple[Version, int]]:
    """Name -> (version, number of hashes) of a lock file."""
    entries = re.findall(
        r"^([\w.-]+)==([^\s;]+)[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )
    return {name: (Version(number), hashes.count("--hash")) for name, number, hashes in entries}


@pytest.mark.parametrize("name", LOCKS.values())
def test_every_requirement_has_a_floor_and_an_upper_bound(name: str) -> None:
    for requirement in requirements(name).values():
        assert {found.operator for found in requirement.specifier} == {">=", "<"}, str(requirement)


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_is_a_pin_with_hashes(name: str) -> None:
    text = (ROOT / name).read_text()
    assert len(pins(text)) == len(re.findall(r"^\S+==", text, re.MULTILINE)) > 20
    assert not re.search(r"file://|https?://|^-|[ ]@[ ]", text, re.MULTILINE)


@pytest.mark.parametrize(("lock", "name"), LOCKS.items())
def test_a_lock_keeps_the_bounds(lock: str, name: str) -> None:
    locked = pins((ROOT / lock).read_text())
    for requirement in requirements(name).values():
        assert locked[requirement.name][0] in requirement.specifier


def test_tests_run_on_what_users_run() -> None:
    run, dev = (pins((ROOT / lock).read_text()) for lock in LOCKS)
    assert run.items() <= dev.items()


@pytest.mark.parametrize(("name", "since"), SAFE_SINCE.items())
def test_no_release_with_a_known_hole_can_be_installed(name: str, since: str) -> None:
    bounds = requirements("requirements.txt")[name].specifier
    assert min(Version(found.version) for found in bounds) >= Version(since)
    assert Version(version(name)) >= Version(since)


def test_a_form_parser_is_not_installed() -> None:
    """We parse no forms, python-multipart has had a run of holes, and FastAPI would use it if it could."""
    assert "python-multipart" not in pins((ROOT / "requirements.lock").read_text())


def test_a_lock_without_hashes_would_be_seen(tmp_path: Path) -> None:
    lock = tmp_path / "bad.lock"
    lock.write_text("rich==15.0.0\nidna==3.20 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    assert pins(lock.read_text()) == {"idna": (Version("3.20"), 1)}
