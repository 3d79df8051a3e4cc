#!/usr/bin/env python3
"""Not a scanner: writes sbom.cdx.json, what gets installed with llmpod, from requirements.lock alone.

CycloneDX 1.6 (ECMA-424): each package with its version, the hashes of its files, and who needs it. The same lock gives
the same bytes, so a test can tell that it is current.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_PIN = re.compile(r"^([\w.-]+)==([^\s;\\]+)[^\n]*\n((?:    [^\n]*\n)+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"^    # (?:via|  ) *(\S.*)$", re.MULTILINE)
_OURS = "llmpod"


def document(lock: str) -> str:
    """The SBOM of a lock file as pip-compile writes it: one line a package, so that changes can be read."""
    found = [(name, version, block) for name, version, block in _PIN.findall(lock)]
    refs = {name: f"pkg:pypi/{name}@{version}" for name, version, _ in found} | {_OURS: _OURS}
    needs: dict[str, list[str]] = {ref: [] for ref in refs.values()}
    for name, _, block in found:
        for parent in _VIA.findall(block):
            needs[refs[_OURS if parent.startswith("-r ") else parent]].append(refs[name])
    head: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": _OURS, "bom-ref": _OURS}},
    }
    components = [
        _component(refs[name], name, version, _HASH.findall(block)) for name, version, block in found
    ]
    graph = [{"ref": ref, "dependsOn": sorted(others)} for ref, others in needs.items()]
    lists = f'"components": {_lines(components)},\n"dependencies": {_lines(graph)}'
    return f"{json.dumps(head)[:-1]},\n{lists}\n}}\n"


def _component(ref: str, name: str, version: str, hashes: list[str]) -> dict[str, Any]:
    files = [{"alg": "SHA-256", "content": content} for content in hashes]
    page = f"https://pypi.org/project/{name}/{version}/"
    return {
        "type": "library",
        "bom-ref": ref,
        "name": name,
        "version": version,
        "purl": ref,
        "externalReferences": [{"type": "distribution", "url": page, "hashes": files}],
    }


def _lines(items: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(map(json.dumps, items)) + "\n]"


if __name__ == "__main__":
    text = document((_ROOT / "requirements.lock").read_text(encoding="utf-8"))
    (_ROOT / "sbom.cdx.json").write_text(text, encoding="utf-8")
    sys.stdout.write(f"sbom.cdx.json: {text.count('bom-ref') - 1} packages\n")
