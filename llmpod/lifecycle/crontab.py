"""Not cron: reads and changes a user's crontab without touching a byte of what is not ours.

The table is read with ``crontab -l`` and replaced through ``crontab -``, as people do it: where cron keeps it and
who may write there is cron's business.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmpod.config.children import child_environ
from llmpod.errors import LlmpodError, StateError
from llmpod.lifecycle.schedule import KEY_FILE, SHUTDOWN, markers

SCRIPT = "manage_pod.py"
LIMIT_SECONDS = 30
_JOB = re.compile(r"\s*(?:@\w+|(?:[^\s#]\S*\s+){4}\S+)\s+(.*)$")
_OURS = re.compile(rf"(^|[/\s'\"]){re.escape(SCRIPT)}\b")
# Debian, cronie and macOS; busybox
_NO_TABLE = re.compile(r"no crontab for|No such file or directory")


class Crontab:
    """The crontab of the user who runs this.

    Args:
        environ: tells where the program ``crontab`` is found.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = child_environ(environ)

    def read(self) -> str | None:
        """The whole table, or None where the program ``crontab`` does not exist.

        Raises:
            StateError: it cannot be read; then it must not be written either.
        """
        try:
            done = self._run("-l")
        except FileNotFoundError:
            return None
        if done.returncode and _NO_TABLE.search(_text(done.stderr)):
            return ""
        if done.returncode:
            raise StateError(f"`crontab -l` failed: {_text(done.stderr).strip()}")
        return _text(done.stdout)

    def write(self, text: str) -> None:
        """Replace the whole table and look whether that is what it is now; an empty one is removed.

        Raises:
            StateError: cron refused it, or somebody else changed it at the same time.
        """
        done = self._run("-", text) if text else self._run("-r")
        if done.returncode:
            raise StateError(
                f"cron refused the new table: {_text(done.stderr).strip()}", hint="Nothing was changed."
            )
        if not (self.read() or "").endswith(text):  # some crons put a note of their own in front
            raise StateError(
                "The crontab is not what was written: something else changes it.", hint="Try again."
            )

    def _run(self, word: str, text: str = "") -> "subprocess.CompletedProcess[bytes]":
        try:
            return subprocess.run(
                ["crontab", word],
                env=self._environ,
                input=text.encode("utf-8", "surrogateescape"),
                capture_output=True,
                check=False,
                timeout=LIMIT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise StateError(f"`crontab {word}` did not end within {LIMIT_SECONDS} s.") from None


def missing() -> LlmpodError:
    """What to say where there is no ``crontab``."""
    return LlmpodError(
        "There is no program `crontab` here.",
        hint="Install it (Debian, Ubuntu: `sudo apt install cron`; Fedora: `sudo dnf install cronie`), or use"
        " `schedule install systemd`.",
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# --- the block ------------------------------------------------------------------------------------------------------
def block_of(text: str, install_id: str) -> str | None:
    """The lines of one installation, markers included, or None.

    Raises:
        StateError: a marker stands alone.
    """
    span = _span(text, install_id)
    return text[slice(*span)] if span else None


def with_block(text: str, install_id: str, block: str) -> str:
    """The table with this installation's lines replaced where they are, or added at the end."""
    if span := _span(text, install_id):
        return text[: span[0]] + block + text[span[1] :]
    return text + ("\n" if text and not text.endswith("\n") else "") + block


def without_block(text: str, install_id: str) -> str:
    """The table without this installation's lines."""
    return with_block(text, install_id, "") if _span(text, install_id) else text


def _span(text: str, install_id: str) -> tuple[int, int] | None:
    begin, end = markers(install_id)
    starts = [m.start() for m in re.finditer(rf"^{re.escape(begin)}\b.*$", text, re.MULTILINE)]
    ends = [m.end() for m in re.finditer(rf"^{re.escape(end)}[ \t]*(?:\n|\Z)", text, re.MULTILINE)]
    if not starts and not ends:
        return None
    if len(starts) != 1 or len(ends) != 1 or ends[0] <= starts[0]:
        raise StateError(
            f"The crontab's lines between `{begin}` and `{end}` are damaged.",
            hint="Remove them with `crontab -e`, markers included, and try again.",
        )
    return starts[0], ends[0]


# --- what stands in it ----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Entry:
    """One line that runs ``manage_pod.py``, ours or written by hand.

    Args:
        number: of the line, from 1.
        command: as it is written, with cron's own escapes.
        environ: the assignments above it; cron gives them to the job.
        block: the id of the block that it stands in, or None.
    """

    number: int
    command: str
    environ: Mapping[str, str] = field(default_factory=dict)
    block: str | None = None

    @property
    def shell(self) -> str:
        """What cron hands to the shell: up to the first ``%`` that is not escaped, escapes removed."""
        return re.split(r"(?<!\\)%", self.command, maxsplit=1)[0].replace("\\%", "%")

    @property
    def is_cut(self) -> bool:
        """Whether an unescaped ``%`` cuts the command; the job then ends in silence (measured)."""
        return re.search(r"(?<!\\)%", self.command) is not None

    @property
    def words(self) -> list[str]:
        try:
            return shlex.split(self.shell)
        except ValueError:  # a quote without its partner; the shell will say so too
            return self.shell.split()

    @property
    def script(self) -> str:
        return next((word for word in self.words if Path(word).name == SCRIPT), SCRIPT)

    @property
    def config(self) -> str | None:
        return self._value("--config")

    @property
    def log_file(self) -> str | None:
        """Where its output goes: the option, or the target of ``>`` or ``>>``."""
        if found := re.search(r"(?<![0-9&])>>?\s*(\"[^\"]*\"|'[^']*'|[^\s;&|]+)", self.shell):
            return found[1].strip("'\"")
        return self._value("--log-file")

    @property
    def is_shutdown(self) -> bool:
        return SHUTDOWN in self.words

    @property
    def names_key_file(self) -> bool:
        return any(word.startswith(KEY_FILE + "=") for word in self.words)

    def instead(self, arguments: str) -> str:
        """The same shell command, its program called with ``arguments`` instead of ``--shutdown`` or ``pass``."""
        plain = re.sub(rf"\s(?:{SHUTDOWN}|pass --for[ =]\d+)\b", "", self.shell)
        return re.sub(rf"{re.escape(SCRIPT)}['\"]?", lambda found: f"{found[0]} {arguments}", plain, count=1)

    def _value(self, option: str) -> str | None:
        words = self.words
        for word, following in zip(words, [*words[1:], None], strict=True):
            if word == option:
                return following
            if word.startswith(option + "="):
                return word.partition("=")[2]
        return None


def entries(text: str) -> Iterator[Entry]:
    """The lines that run ``manage_pod.py``, with what they inherit."""
    environ: dict[str, str] = {}
    block: str | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if marker := re.match(r"# (BEGIN|END) llmpod ([0-9a-f]+)\b", line):
            block = marker[2] if marker[1] == "BEGIN" else None
        elif assignment := re.match(r"\s*([A-Za-z_]\w*)\s*=\s*(.*?)\s*$", line):
            environ[assignment[1]] = _unquoted(assignment[2])
        elif (job := _JOB.match(line)) and _OURS.search(job[1]):
            yield Entry(number, job[1], dict(environ), block)


def _unquoted(value: str) -> str:
    """Quotes around a whole value are not part of it (crontab(5)); variables are not replaced."""
    found = re.fullmatch(r"(['\"])(.*)\1", value)
    return found[2] if found else value
