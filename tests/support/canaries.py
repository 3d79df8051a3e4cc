"""Secrets that exist only to be searched for: none may turn up in a log, file, answer or process list."""

import base64
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from tests.support import procfs
from tests.support.procfs import PROC

PREFIXES = {"RUNPOD_API_KEY": "rpa_", "HF_TOKEN": "hf_", "VLLM_API_KEY": "sk-pod-", "API_KEY": "sk-"}
_LINE = re.compile(r"[A-Za-z0-9+/=]{16,}")  # of a PEM file; a shorter last one proves nothing
NOT_OURS = ("RUNPOD_API_KEY", "HF_TOKEN")
"""What a terminal exports and the proxy has no business with."""


@dataclass(frozen=True)
class Canaries:
    """Unique secrets by name: that of the environment variable that carries one, or its kind."""

    values: Mapping[str, str]

    @classmethod
    def fresh(cls, names: Iterable[str] = PREFIXES) -> "Canaries":
        return cls({name: f"{PREFIXES[name]}Canary/{secrets.token_hex(16)}" for name in names})

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def plus(self, **values: str | Path | None) -> "Canaries":
        """These and more. A path is a PEM file, each line of whose key is a secret; None and empty ones are none."""
        more: dict[str, str] = {}
        for name, value in values.items():
            if isinstance(value, Path):
                lines = value.read_text().splitlines()
                more |= {f"{name}, line {n}": line for n, line in enumerate(lines) if _LINE.fullmatch(line)}
            elif value:
                more[name] = value
        return Canaries({**self.values, **more})

    @cached_property
    def _forms(self) -> dict[str, tuple[bytes, ...]]:
        return {name: tuple(dict.fromkeys(_forms(value))) for name, value in self.values.items()}

    def seen_in(self, text: str | bytes) -> set[str]:
        """The names whose secret is in the text: plain, percent-encoded, as JSON, in hexadecimal, or inside base64."""
        data = text.encode() if isinstance(text, str) else text
        return {name for name, forms in self._forms.items() if any(form in data for form in forms)}

    def seen_in_files(self, *roots: Path) -> dict[Path, set[str]]:
        """The files at or below these paths that hold a secret, each with the names."""
        files = [path for root in roots for path in (root, *root.rglob("*")) if path.is_file()]
        return {path: names for path in files if (names := self.seen_in(path.read_bytes()))}

    def seen_in_processes(self, pids: Iterable[int], *, what: str = "cmdline") -> dict[int, set[str]]:
        """The processes with a secret in `cmdline` or in `environ` (Linux)."""
        found = {pid: self.seen_in((PROC / str(pid) / what).read_bytes()) for pid in pids}
        return {pid: names for pid, names in found.items() if names}

    def sightings(
        self, texts: Mapping[str, str | bytes], *roots: Path, pid: int | None = None, parent: bool = False
    ) -> list[str]:
        """Where any of them is, in words; nothing, as it should be.

        Args:
            texts: what was said, by what said it.
            roots: files and directories to look through.
            pid: a process, whose argument list and whose children's environment are looked at (Linux).
            parent: its own environment, too.
        """
        found = [
            f"the {name} in {where}" for where, text in texts.items() for name in sorted(self.seen_in(text))
        ]
        for path, names in self.seen_in_files(*roots).items():
            found += [f"the {name} in the file {path}" for name in sorted(names)]
        if pid is None or not procfs.available():
            return found
        children = [child.pid for child in procfs.descendants(pid)]
        for what, whose in (("cmdline", [pid, *children]), ("environ", children + [pid] * parent)):
            for one in whose:
                seen = self.seen_in(_read(one, what))
                found += [f"the {name} in the {what} of process {one}" for name in sorted(seen)]
        return found


def _read(pid: int, what: str) -> bytes:
    try:
        return (PROC / str(pid) / what).read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def _forms(secret: str) -> Iterator[bytes]:
    data = secret.encode()
    yield data
    yield quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].encode()
    yield data.hex().encode()
    yield data.hex().upper().encode()
    for offset in range(3):  # base64 of a text that holds the secret depends on where in it the secret starts
        inner = base64.b64encode(b"\0" * offset + data)[4 if offset else 0 :].rstrip(b"=")[:-2]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")
