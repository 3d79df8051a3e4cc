"""What the tests of `cost` share: calls of it, and a ledger with a past."""

import json
from pathlib import Path
from typing import Any

from llmpod.lifecycle.book import Tenant
from llmpod.lifecycle.ledger import FILE_NAME, Ledger
from llmpod.lifecycle.spending import month_of
from llmpod.lifecycle.store import Store
from llmpod.model import Instance
from tests.lifecycle.entries import HOUR
from tests.support.install import Install
from tests.support.process import Finished


def cost(install: Install, **env: str) -> dict[str, Any]:
    done = install.start(install.argv("cost", "--json"), env={**install.environ, **env}).expect()
    document: dict[str, Any] = json.loads(done.out)
    return document


def told(install: Install) -> Finished:
    return install.manage("cost").expect()


def without_key(install: Install) -> dict[str, Any]:
    done = install.start(install.argv("cost", "--json"), env=install.env).expect()
    document: dict[str, Any] = json.loads(done.out)
    return document


def ledger(install: Install) -> Ledger:
    return Ledger(Store(install.directory / "pod_state.json").directory / FILE_NAME)


def write_past(install: Install, *pods: tuple[Instance, float], model: str = "org/old") -> None:
    """Machines that are over: each with its end."""
    for seen, end in pods:
        ledger(install).sync([seen], lambda _: Tenant(model), now=end)
        ledger(install).sync([], lambda _: Tenant(model), now=end)


def away_from_the_months_end(install: Install) -> None:
    """Figures of a month are compared: it must not turn meanwhile."""
    now = float(install.sim.state()["now"])
    if (end := month_of(now)[1]) - now < 6 * HOUR:
        install.sim.advance(end - now + 60)


def snapshot(directory: Path) -> dict[str, bytes]:
    """All files but the one that every reader may make."""
    files = (p for p in directory.rglob("*") if p.is_file() and p.name != "install.key")
    return {str(p): p.read_bytes() for p in files}
