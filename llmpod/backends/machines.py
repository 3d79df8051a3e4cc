"""Not the machines: what this installation keeps of those that no provider keeps for it, one directory each.

``machine.json`` (what was ordered) is there before anything is started, ``ended`` once its end was ordered. The
rest belongs to who made the machine. Directories of old machines stay for their logs, the newest few of them.
"""

import json
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmpod.errors import NotFound, ProviderUnavailable
from llmpod.text import one_line

KEPT = 5
_TAIL_BYTES = 256 * 1024
_BRIEF_CHARS = 400


class Machines:
    """The directories of the machines of one installation.

    Args:
        directory: where they are; made when the first one is.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, name: str) -> Path:
        """The directory of one machine. Raises NotFound when that can be no machine's name."""
        if re.fullmatch(r"[A-Za-z0-9][\w.-]{0,199}", name) is None:
            raise NotFound(f"{name!r} is no machine of this installation.")
        return self._directory / name

    def names(self) -> list[str]:
        """Every machine whose directory is there, ended ones included."""
        with suppress(OSError):
            return sorted(path.name for path in self._directory.iterdir() if (path / "machine.json").exists())
        return []

    def promised(self) -> set[int]:
        """The ports of this machine that servers of this installation were given and that may not be listened on yet.

        Those of all its models: a job waits for hours, and whoever takes its port meanwhile is taken for it.
        """
        siblings = self._directory.parent
        found = [Machines(path) for path in siblings.iterdir() if path.is_dir()] if siblings.is_dir() else []
        orders = (one.order(name) for one in found for name in one.names() if not one.has_ended(name))
        return {port for order in orders if isinstance(port := order.get("port"), int)}

    def begin(self, name: str, order: Mapping[str, Any]) -> Path:
        """Make a machine's directory with what was ordered.

        Raises:
            ProviderUnavailable: the disk refuses; nothing was started.
        """
        home = self.path(name)
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            home.parent.chmod(0o700)
            self._put(home / "machine.json", json.dumps(order))
        except OSError as e:
            raise ProviderUnavailable(
                f"Cannot write into {home}: {e.strerror}. Nothing was started."
            ) from None
        return home

    def order(self, name: str) -> dict[str, Any]:
        """What was ordered; empty when nobody knows any more."""
        return self.document(name, "machine.json")

    def document(self, name: str, file: str) -> dict[str, Any]:
        """A JSON object of a machine; empty when there is none."""
        with suppress(OSError, ValueError, RecursionError):
            found = json.loads((self.path(name) / file).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return {}

    def note(self, name: str, file: str, document: Mapping[str, Any]) -> None:
        """Keep something that one can do without; a full disk or a machine that is no more is no matter."""
        with suppress(OSError):
            self._put(self.path(name) / file, json.dumps(document))

    def end(self, name: str) -> bool:
        """Note that its end was ordered; False when there is no such machine.

        Raises:
            ProviderUnavailable: the disk refuses; its end is ordered again later.
        """
        home = self.path(name)
        if not home.is_dir():
            return False
        try:
            (home / "ended").touch(mode=0o600)
        except OSError as e:
            raise ProviderUnavailable(f"Cannot write into {home}: {e.strerror}.") from None
        return True

    def has_ended(self, name: str) -> bool:
        """Whether its end was ordered."""
        return (self.path(name) / "ended").exists()

    def tidy(self, keep: Iterable[str]) -> None:
        """Remove the directories of old machines but for the newest and for those in ``keep``."""
        over = [name for name in self.names() if self.has_ended(name) and name not in set(keep)]
        with suppress(OSError):
            over.sort(key=lambda name: self.path(name).stat().st_mtime)
        for name in over[:-KEPT]:
            shutil.rmtree(self.path(name), ignore_errors=True)

    def tail(self, name: str, lines: int) -> list[str]:
        """The last lines of its log, oldest first, as one may show them."""
        text = b""
        for file in ("log.1", "log"):
            with suppress(OSError), (self.path(name) / file).open("rb") as log:
                log.seek(max(0, log.seek(0, 2) - _TAIL_BYTES))
                text += log.read(_TAIL_BYTES)
        shown = [one_line(line) for line in text.decode("utf-8", "replace").splitlines()]
        return [line for line in shown if line.strip()][-lines:] if lines else []

    @staticmethod
    def _put(path: Path, text: str) -> None:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o600)
        temporary.replace(path)


def brief(lines: Iterable[str]) -> str:
    """The end of a log within a sentence, in whole words: who masks it does not know half a secret for one."""
    text = " | ".join(lines)
    if len(text) > _BRIEF_CHARS:
        text = f"… {text[-_BRIEF_CHARS:].partition(' ')[2]}".rstrip()
    return f"; its last lines: {text}" if text else "; it said nothing"
