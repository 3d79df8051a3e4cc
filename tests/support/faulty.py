"""The fault proxy of the simulator as a process, and its control address. Not the faults: llmpod/sim/faultproxy.py."""

import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.process import PYTHON, running
from tests.support.wait import eventually

Faults = Mapping[str, float]


@dataclass(frozen=True)
class Faulty:
    """One running fault proxy."""

    port: int
    control_url: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def plan(self, *, up: Faults | None = None, down: Faults | None = None) -> None:
        """What happens to connections from now on."""
        body = json.dumps({"up": dict(up or {}), "down": dict(down or {})}).encode()
        request = urllib.request.Request(self.control_url, body, method="PUT")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200


@contextmanager
def faulty(to: int, *arguments: str) -> Iterator[Faulty]:
    """A fault proxy in front of a loopback port."""
    command = [PYTHON, "-m", "llmpod.sim.faultproxy", "--to", f"127.0.0.1:{to}", *arguments]
    with running(command) as process:
        eventually(lambda: "}" in process.out, within=15)
        ready = json.loads(process.out)
        yield Faulty(ready["port"], ready["control_url"])
