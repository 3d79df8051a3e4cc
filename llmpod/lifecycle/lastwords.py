"""Not the log: the last lines of a pod that never got ready, kept because they go when it is terminated (F24)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llmpod.errors import StateError
from llmpod.lifecycle import files
from llmpod.veil import Veil

MOST_LINES = 200
_MAX_LINE = 2000


@dataclass(frozen=True, slots=True)
class LastWords:
    """The file with the last lines of the last pod that failed to start.

    Args:
        path: in a private directory of ours.
        veil: takes the secrets out of what is kept.
    """

    path: Path
    veil: Veil

    @classmethod
    def of(cls, directory: Path, veil: Veil) -> "LastWords":
        return cls(directory / "failed_start.log", veil)

    def keep(self, name: str, why: str, lines: Iterable[str], *, now: float) -> None:
        """Replace what was kept.

        Args:
            name: whose they are.
            why: it is being terminated.
            lines: the last ones, oldest first; secrets are masked here.
            now: epoch seconds.

        Raises:
            StateError: the disk refuses. No log is worth a pod that goes on costing.
        """
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        rows = [self.veil.mask(line)[:_MAX_LINE] for line in lines][-MOST_LINES:]
        text = "\n".join([f"{name}, terminated at {at}: {self.veil.mask(why)}", *rows])
        files.write_atomic(self.path, text + "\n")

    def read(self) -> str:
        """What was kept, its first line saying whose and when; empty when there is nothing."""
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as e:
            raise StateError(f"Cannot read {self.path}: {e}.") from None
