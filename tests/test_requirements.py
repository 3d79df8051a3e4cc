"""What gets installed is bounded, pinned with hashes, and free of known holes."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from llmpod.config.model_keys import DEFAULT_IMAGE
from scripts.sbom import document
from tests.support.source import ROOT

# The first release without a published hole that matters here, and the hole.
SAFE_SINCE = {
    "starlette": "1.0.1",  # CVE-2026-48710: the path taken from the Host header
    "h11": "0.16.0",  # CVE-2025-43859: chunked framing accepted too much, request smuggling
    "urllib3": "2.7.0",  # decompression bombs
}
# The same for what is not asked for by us, should something bring it along.
IF_USED = SAFE_SINCE | {
    "aiohttp": "3.13.4",  # unlimited trailers, two Host fields, a series of smuggling holes
    "python-multipart": "0.0.18",  # the first of a run of holes
}
VLLM_SINCE = "0.22.1"  # CVE-2026-48746: a Host header that gets past the key
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


@pytest.mark.parametrize("lock", LOCKS)
def test_nothing_that_comes_along_has_a_known_hole(lock: str) -> None:
    locked = pins((ROOT / lock).read_text())
    assert {"starlette", "h11", "urllib3"} <= locked.keys()
    for name in IF_USED.keys() & locked.keys():
        assert locked[name][0] >= Version(IF_USED[name]), name


def test_the_model_server_of_our_own_choice_has_no_known_hole() -> None:
    name, _, tag = DEFAULT_IMAGE.partition(":v")
    assert name == "vllm/vllm-openai"
    assert Version(tag) >= Version(VLLM_SINCE)


def test_the_bill_of_materials_is_current() -> None:
    """`scripts/sbom.py` writes it anew."""
    text = (ROOT / "sbom.cdx.json").read_text()
    assert text == document((ROOT / "requirements.lock").read_text())
    bill = json.loads(text)
    locked = pins((ROOT / "requirements.lock").read_text())
    assert {part["name"]: Version(part["version"]) for part in bill["components"]} == {
        name: number for name, (number, _) in locked.items()
    }
    graph = {node["ref"]: node["dependsOn"] for node in bill["dependencies"]}
    reached, waiting = set[str](), ["llmpod"]
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += graph[ref]
    assert reached == {"llmpod", *(part["bom-ref"] for part in bill["components"])}
    assert all(part["externalReferences"][0]["hashes"] for part in bill["components"])


def test_a_form_parser_is_not_installed() -> None:
    """We parse no forms, python-multipart has had a run of holes, and FastAPI would use it if it could."""
    assert "python-multipart" not in pins((ROOT / "requirements.lock").read_text())


def test_a_lock_without_hashes_would_be_seen(tmp_path: Path) -> None:
    lock = tmp_path / "bad.lock"
    lock.write_text("rich==15.0.0\nidna==3.20 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    assert pins(lock.read_text()) == {"idna": (Version("3.20"), 1)}
