"""A user's account for the tests of `schedule` and `doctor`: a home with the key, a crontab, and a cron that runs.

The crontab is a real program that keeps one table in a file. Its first lines are somebody else's: they give HOME
and PATH to every job, as cron itself does with such lines, so that no job ever sees the home of the machine's owner.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.install import Install
from tests.support.process import PYTHON, Finished, run, running
from tests.support.source import ROOT

CRONTAB = """#!/bin/sh
table="${0%/*}/table"
case "$1" in
  -l) test -f "$table" || { echo "no crontab for ann" >&2; exit 1; }; exec cat "$table" ;;
  -r) exec rm -f "$table" ;;
  -) exec cat > "$table" ;;
esac
"""
NO_SYSTEMD = """#!/bin/sh
echo "systemctl $*" >> "${0%/*}/calls"
case "$2" in enable|disable) exit 0 ;; esac
echo "Failed to connect to bus: No medium found" >&2
exit 1
"""
MANAGER = ROOT / "manage_pod.py"


@dataclass
class Account:
    """One user with one installation."""

    install: Install
    home: Path
    bin: Path

    @property
    def key_file(self) -> Path:
        return self.home / ".config/llmpod/runpod_api_key"

    @property
    def table(self) -> Path:
        return self.bin / "table"

    @property
    def foreign(self) -> str:
        """The lines of the crontab that were there first."""
        return f"HOME={self.home}\nPATH={self.bin}:/usr/bin:/bin\n# mine, 100%\n@daily true \\% x\n"

    @property
    def units(self) -> Path:
        return self.home / ".config/systemd/user"

    @property
    def log_file(self) -> Path:
        return self.home / f".local/state/llmpod/{self.install.install_id}.log"

    @property
    def environ(self) -> dict[str, str]:
        """A terminal: no key is exported."""
        path = os.pathsep.join([str(self.bin), self.install.env["PATH"]])
        return {**self.install.env, "HOME": str(self.home), "PATH": path}

    def program(self, name: str, text: str) -> None:
        """Put a program into the first place of PATH."""
        path = self.bin / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def manage(self, *arguments: str, more: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Finished:
        """manage_pod.py at this user's terminal (which is none: standard input is empty)."""
        argv = [PYTHON, str(MANAGER), "--config", str(self.install.path), *arguments]
        return self.install.start(argv, env={**self.environ, **(more or {})}, cwd=cwd, within=90)

    def doctor(self, *arguments: str, more: Mapping[str, str] | None = None) -> "Diagnosis":
        return Diagnosis.of_json(self.manage("doctor", "--json", *arguments, more=more))

    def shell(self, command: str) -> Finished:
        """A command as this user types it; who is asked for the key pastes it."""
        key = self.install.sim.key + "\n"
        return run(["sh", "-c", command], env=self.environ, cwd=self.home, stdin=key, within=90)

    def by_hand(self, line: str) -> None:
        """The crontab of somebody who wrote it without `schedule install`."""
        self.table.write_text(self.foreign + line + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Diagnosis:
    """What doctor said."""

    code: int
    document: Mapping[str, Any]

    @classmethod
    def of_json(cls, done: Finished) -> Self:
        return cls(done.code, json.loads(done.out))

    def all(self, status: str) -> list[dict[str, str]]:
        return [check for check in self.document["checks"] if check["status"] == status]

    @property
    def wrong(self) -> list[str]:
        """The names of all that is not ok."""
        return sorted({check["name"] for check in self.document["checks"] if check["status"] != "ok"})

    def of(self, name: str) -> dict[str, str]:
        """The worst finding of that name."""
        found: list[dict[str, str]] = [c for c in self.document["checks"] if c["name"] == name]
        assert found, f"no finding {name!r} in {self.document}"
        return max(found, key=lambda check: ("ok", "warning", "problem").index(check["status"]))


def account(install: Install, home: Path) -> Account:
    """A healthy account; nothing is scheduled yet."""
    bin_directory = home / "bin"
    bin_directory.mkdir(parents=True)
    found = Account(install, home, bin_directory)
    found.program("crontab", CRONTAB)
    found.program("systemctl", NO_SYSTEMD)
    (bin_directory / "python3").symlink_to(PYTHON)
    found.table.write_text(found.foreign, encoding="utf-8")
    found.key_file.parent.mkdir(parents=True)
    found.key_file.write_text(install.sim.key + "\n", encoding="ascii")
    found.key_file.chmod(0o600)
    return found


@contextmanager
def cron_daemon(found: Account) -> Iterator[None]:
    """A process whose name is `cron`, which is all that can be seen of a cron from outside."""
    shutil.copy2(shutil.which("sleep") or "/bin/sleep", found.bin / "cron")
    with running([found.bin / "cron", "600"], env=found.environ):
        yield
