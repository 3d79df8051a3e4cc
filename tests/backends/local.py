"""Local commands under test: a backend on a private directory, whose machines are all ended at the end."""

import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpod.backends.machines import Machines
from llmpod.backends.process import LocalProcesses
from llmpod.config import ProcessSection
from llmpod.model import Instance, Offer, Spec
from tests.support.wait import eventually

STAY = "import signal, sys; print('up', flush=True); signal.pause()"
KEY = "sk-llmpod-bait"
OFFER = Offer("process", usd_per_hour=0.0)
SPEC = Spec("org/m", "org/m", "", (), 0, 0, (OFFER,), digest="d1")


@dataclass
class Local:
    """A backend and what was started with it."""

    directory: Path
    environ: dict[str, str]
    made: list[str] = field(default_factory=list)
    mark: str = field(default_factory=lambda: f"llmpod-{secrets.token_hex(4)}-abcdef-")

    def backend(self, *command: str, cwd: Path | None = None, **settings: Any) -> LocalProcesses:
        section = ProcessSection.model_validate({"command": command, "stop_seconds": 5.0, **settings})
        return LocalProcesses(
            section, Machines(self.directory / "machines"), cwd=cwd or self.directory, environ=self.environ
        )

    def create(self, backend: LocalProcesses, *, seconds: float = 3600.0) -> Instance:
        name = f"{self.mark}{len(self.made):04x}"
        self.made.append(name)
        deadline = time.time() + seconds
        return backend.create(SPEC, OFFER, name, {"VLLM_API_KEY": KEY}, deadline=deadline)

    def python(self, code: str, **settings: Any) -> LocalProcesses:
        """A backend whose command is a Python program; its arguments are sys.argv[1:]."""
        return self.backend(sys.executable, "-c", code, **settings)

    def said(self, backend: LocalProcesses, name: str, text: str) -> None:
        """Wait until a line of the machine's log is this one."""
        eventually(lambda: text in backend.tail(name, 50), within=20.0)

    def listed(self, backend: LocalProcesses) -> tuple[Instance, ...]:
        """Those of this test; others run beside it on the same machine."""
        return tuple(seen for seen in backend.list(()).instances if seen.id.startswith(self.mark))

    def looks(self, backend: LocalProcesses, name: str) -> str:
        """The observed state of a machine, or nothing."""
        return next((str(seen.observed) for seen in self.listed(backend) if seen.id == name), "")

    def is_over(self, backend: LocalProcesses) -> bool:
        """Orders the end of all that is listed; whether nothing was."""
        listed = self.listed(backend)
        for seen in listed:
            backend.destroy(seen.id)
        return not listed


@contextmanager
def local(directory: Path) -> Iterator[Local]:
    """Whatever is started here has ended afterwards."""
    made = Local(directory, dict(os.environ))
    try:
        yield made
    finally:
        backend = made.backend("true")
        eventually(lambda: made.is_over(backend), within=30.0)
