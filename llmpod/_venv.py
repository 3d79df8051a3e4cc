"""Not an installer: finds the repository's own Python when a script was started by another one.

cron and people say ``python3``; the libraries are in ``.venv`` beside the script. The standard library only, and
nothing of ours: this runs before anything else can be imported.
"""

import importlib.util
import os
import sys
from pathlib import Path

_NEEDED = ("pydantic", "fastapi", "uvicorn", "httptools", "requests", "rich", "prometheus_client")


def reexec_in_venv(script: Path) -> None:
    """Start ``script`` again under ``.venv/bin/python``, whose packages are the locked ones.

    Without ``.venv`` any Python that has the libraries will do.

    Args:
        script: the running entry point; ``.venv`` is looked for beside it.

    Raises:
        SystemExit: code 1, with what to do, when the libraries are nowhere.
    """
    home = script.resolve().parent
    python = home / ".venv" / "bin" / "python"
    inside = Path(sys.prefix).resolve() == (home / ".venv").resolve()
    if python.exists() and not inside:
        sys.stdout.flush()
        os.execv(python, [str(python), str(script.resolve()), *sys.argv[1:]])  # noqa: S606 - no shell
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        sys.stderr.write(
            f"{script.name}: this Python ({sys.executable}) lacks {', '.join(missing)}."
            f" Run `make install` in {home} first.\n"
        )
        raise SystemExit(1)
