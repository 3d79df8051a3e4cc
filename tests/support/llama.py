"""Where a real llama.cpp is on this machine (scripts/components puts it there), and the command that runs it."""

import sys
from pathlib import Path

from tests.support.desk import MODEL
from tests.support.gguf import write_tiny_llama
from tests.support.source import ROOT

PYTHON = ROOT / ".components" / "bin" / "python"


def why_not() -> str:
    """Why it cannot run here; empty when it can."""
    found = PYTHON.parents[1].glob("lib/python*/site-packages/xllamacpp")
    return (
        ""
        if any(found)
        else f"not installed: xllamacpp in .components (scripts/components); this is {sys.platform}"
    )


def command(directory: Path) -> list[str]:
    """The words that serve a tiny model with random weights, made in a directory; an address is to be added."""
    model = directory / "tiny.gguf"
    write_tiny_llama(model)
    program = str(ROOT / "tests" / "support" / "llama_server.py")
    return [str(PYTHON), program, "--model", str(model), "--alias", MODEL]
