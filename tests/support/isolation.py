"""The environment that tests run in: nothing of the machine's owner in it, neither a key nor a home."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_KEPT = {
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "PATH",
    "TERM",
    "TMPDIR",
    "TZ",
}
_KEPT_PREFIXES = (
    "COVERAGE_",
    "PYENV_",
    "PYTEST_",
)  # the tools' own, so that they work in child processes too


def isolated(environ: Mapping[str, str], *, home: Path) -> dict[str, str]:
    """The part of an environment that a test may see, with `home` as HOME and this Python first in PATH."""
    kept = {
        name: value for name, value in environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    python = str(Path(sys.executable).parent)
    return {**kept, "HOME": str(home), "PATH": os.pathsep.join([python, environ.get("PATH", os.defpath)])}
