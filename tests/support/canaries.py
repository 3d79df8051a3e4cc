"""Secrets that exist only to be searched for: none may turn up in a log, file, answer or process list."""

import base64
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tests.support.procfs import PROC

PREFIXES = {"RUNPOD_API_KEY": "rpa_", "HF_TOKEN": "hf_", "VLLM_API_KEY": "sk-pod-", "API_KEY": "sk-"}


@dataclass(frozen=True)
class Canaries:
    """One unique secret for each environment variable that carries one."""

    values: Mapping[str, str]

    @classmethod
    def fresh(cls) -> "Canaries":
        return cls({name: f"{prefix}Canary/{secrets.token_hex(16)}" for name, prefix in PREFIXES.items()})

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def seen_in(self, text: str | bytes) -> set[str]:
        """The names whose secret is in the text: plain, percent-encoded, or inside base64."""
        data = text.encode() if isinstance(text, str) else text
        return {name for name, value in self.values.items() if any(form in data for form in _forms(value))}

    def seen_in_files(self, *roots: Path) -> dict[Path, set[str]]:
        """The files at or below these paths that hold a secret, each with the names."""
        files = [path for root in roots for path in (root, *root.rglob("*")) if path.is_file()]
        return {path: names for path in files if (names := self.seen_in(path.read_bytes()))}

    def seen_in_processes(self, pids: Iterable[int], *, what: str = "cmdline") -> dict[int, set[str]]:
        """The processes with a secret in `cmdline` or in `environ` (Linux)."""
        found = {pid: self.seen_in((PROC / str(pid) / what).read_bytes()) for pid in pids}
        return {pid: names for pid, names in found.items() if names}


def _forms(secret: str) -> Iterator[bytes]:
    yield secret.encode()
    yield quote(secret, safe="").encode()
    for offset in range(3):  # base64 of a text that holds the secret depends on where in it the secret starts
        inner = base64.b64encode(b"\0" * offset + secret.encode())[4 if offset else 0 :].rstrip(b"=")[:-2]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")
