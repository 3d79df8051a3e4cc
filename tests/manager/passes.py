"""Not a test: passes of one installation, what they did to its simulator, and how its pods lived."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.install import Install
from tests.support.process import Finished, run

_FAKETIME = ("/usr/lib/{}/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")


def until(install: Install, phase: str, *, most: int = 1000, within: float = 30.0) -> dict[str, Any]:
    """Passes until the state file says that phase; what it says then. ``within``: seconds, for graces are some."""
    seen: list[str] = []
    deadline = time.monotonic() + within
    while len(seen) < most and time.monotonic() < deadline:
        seen.append(install.manage().out.strip())
        if (record := install.state())["phase"] == phase:
            return record
    raise AssertionError(f"not {phase} after {len(seen)} passes:\n" + "\n".join(seen))


def calls(install: Install, method: str) -> list[dict[str, Any]]:
    """The API calls of that method, pods only."""
    return [
        r
        for r in install.sim.requests()
        if r["method"] == method and r["path"].startswith("/v2/pods") and "catalog" not in r["path"]
    ]


def creates(install: Install) -> int:
    """How many create calls there were."""
    return len([r for r in calls(install, "POST") if r["path"] == "/v2/pods"])


def alive(install: Install) -> list[str]:
    """The ids of the pods that were not deleted."""
    return [str(pod["id"]) for pod in install.sim.alive()]


def edit(install: Install, **changes: object) -> None:
    """Change the model's record in the state file, as time, a crash or a person might have."""
    path = install.directory / "pod_state.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["models"]["default"] |= changes
    path.write_text(json.dumps(document), encoding="utf-8")


def pass_deadline(install: Install) -> None:
    """Let the run's time pass, for the provider and so for the manager."""
    record = install.state()
    install.sim.advance(max(0.0, record["deadline"] - install.sim.state()["now"]) + 1)


def overlapping(pods: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of pods that existed, and so cost money, at the same time."""
    lives = sorted((p["created_at"], p["terminated_at"] or float("inf"), p["id"]) for p in pods)
    return [(first[2], second[2]) for first, second in pairwise(lives) if second[0] < first[1]]


def under_faketime(install: Install, offset: str, *arguments: str, asleep: bool = False) -> Finished:
    """One call of manage_pod.py whose clock is off: ``-1h``, ``+1d``, or faster (``+0 x60``).

    ``asleep``: the time did pass, so that the age of the boot has grown as well. Skips the test, with a notice,
    where libfaketime is missing.
    """
    places = [Path(p.format(f"{os.uname().machine}-linux-gnu")) for p in _FAKETIME]
    library = next((place for place in places if place.exists()), None)
    if library is None:
        pytest.skip("libfaketime is not installed (apt: faketime)")
    # Sleeps and socket time-outs must go on in real time unless the clock is made to run faster.
    plain = {} if asleep or " x" in offset else {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    env = {**install.environ, "LD_PRELOAD": str(library), "FAKETIME": offset, **plain}
    return run(install.argv(*arguments), env=env, within=60)
