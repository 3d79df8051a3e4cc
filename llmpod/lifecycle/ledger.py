"""Not a sum and not a decision: the file in which every machine's cost is written down, so that no crash loses it.

``ledger.jsonl`` is only ever appended to: one ``write`` and one ``fsync`` for each pass that has something new, none
for a pass that has not. A line that a crash has torn stays where it is and is skipped; what it would have said is
due again in the next pass (see :mod:`llmpod.lifecycle.book`).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llmpod.errors import NewerState, StateError
from llmpod.lifecycle import files
from llmpod.lifecycle.book import VERSION, Book, Line, Tenant, due
from llmpod.model import Instance

FILE_NAME = "ledger.jsonl"  # in the store's directory


class Ledger:
    """The ledger of one installation. Whoever writes holds the store's lock.

    Args:
        path: the file; it need not exist. Mode 0600.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Ledger({self.path})"

    def read(self) -> Book:
        """All that was ever written.

        Raises:
            StateError: the file cannot be read; then nobody knows what was spent, and nothing may be created.
            NewerState: a newer version wrote it.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return Book()
        except OSError as e:
            raise StateError(
                f"Cannot read the ledger {self.path}: {e.strerror}.",
                hint="Make it a readable file of yours (chmod 600), or move it away to begin a new one;"
                " until then nothing is created.",
            ) from None
        return Book().with_lines(self._lines(content))

    def sync(
        self,
        instances: Sequence[Instance],
        whose: Callable[[Instance], Tenant],
        *,
        now: float,
        ended: Mapping[str, float] | None = None,
        complete: bool = True,
    ) -> Book:
        """Write down what has changed; called once a pass with all machines of ours that are listed.

        Args:
            instances: the machines.
            whose: see :func:`llmpod.lifecycle.book.tenants`.
            now: the time.
            ended: by pod id, when a machine is known to have ended, where that was before ``now``.
            complete: these are all of ours; one that lacks is gone.

        Returns:
            The book with the changes, also when they could not be written: then its ``error`` says why, the next
            pass tries again, and no termination needs to wait for that.

        Raises:
            StateError: see :meth:`read`.
        """
        book = self.read()
        return self._write(book, due(book, instances, whose, now=now, ended=ended, complete=complete))

    def note(self, made: Instance, whose: Callable[[Instance], Tenant], *, now: float) -> Book:
        """Write down a machine that was just created: it may be gone again before a pass has listed it.

        Raises:
            StateError: see :meth:`read`.
        """
        book = self.read()
        return self._write(book, due(book, (made,), whose, now=now, complete=False))

    def _write(self, book: Book, lines: Sequence[Line]) -> Book:
        if not lines:
            return book
        after = book.with_lines(lines)
        try:
            files.append(self.path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        except OSError as e:
            error = StateError(
                f"Cannot write the ledger {self.path}: {e.strerror}.",
                hint="Its figures are right in this pass; make room or mend its permissions.",
            )
            return replace(after, error=error)
        except StateError as e:
            return replace(after, error=e)
        return after

    def begin(self) -> None:
        """Make the file; its name in its directory survives a power cut, too. Raises StateError."""
        if not self.path.exists():
            files.create_once(self.path, str)

    def _lines(self, content: bytes) -> Iterator[Line]:
        for raw in content.split(b"\n"):
            if raw.strip():
                yield self._line(raw)

    def _line(self, raw: bytes) -> Line:
        """One line; an empty one for what is none. Raises NewerState."""
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            return {}
        if not isinstance(line, dict):
            return {}
        if isinstance(version := line.get("v"), int) and version > VERSION:
            raise NewerState(
                f"{self.path} was written by a newer llmpod (version {version}).",
                hint="Use that version; `--shutdown` still terminates the pods with this one.",
            )
        return line
