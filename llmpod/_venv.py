"""Not an installer: finds the repository's own Python when a script was started by another one.

cron and people say ``python3``; the libraries are in ``.venv`` beside the script. The standard library only, and
nothing of ours: this runs before anything else can be imported.
"""

import importlib.util
import os
import sys
from pathlib import Path

_NEEDED = ("pydantic", "fastapi", "uvicorn", "httptools", "requests")


def reexec_in_venv(script: Path) -> None:
    """Start ``script`` again under ``.venv/bin/python`` when this Python lacks our libraries.

    Args:
        script: the running entry point; ``.venv`` is looked for beside it.

    Raises:
        SystemExit: code 1, with what to do, when there is no such Python or it lacks them too.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return
    python = script.resolve().parent / ".venv" / "bin" / "python"
    again = Path(sys.prefix).resolve() == python.parent.parent.resolve()
    if again or not python.exists():
        sys.stderr.write(
            f"{script.name}: this Python ({sys.executable}) lacks {', '.join(missing)}."
            f" Run `make install` in {script.resolve().parent} first.\n"
        )
        raise SystemExit(1)
    sys.stdout.flush()
    os.execv(python, [str(python), str(script.resolve()), *sys.argv[1:]])  # noqa: S606 - our own interpreter, no shell
