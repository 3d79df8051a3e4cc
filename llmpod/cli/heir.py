"""Not a supervisor: waits beside a run that nothing else looks after, and ends what it started when it was killed.

A program of its own, in a session of its own, of the standard library alone until it is needed: it reads its standard
input, which the kernel closes when the run dies, however that happens. A run that has cleaned up says goodbye first.
Its arguments are the program's directory, what kind of run it is, and where its files are: the lock of a room and the
configuration in it, or the directory of a demo.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

BYE = b"bye\n"
ROOM = "room"
DEMO = "demo"


@contextmanager
def heir(kind: str, *files: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """Have one wait for as long as this lasts.

    Args:
        kind: :data:`ROOM`: ``files`` are its lock and its configuration; :data:`DEMO`: its directory.
        files: of the run.
        environ: ours, of which the heir gets what a pass needs.
    """
    from llmpod.config.children import A_PASS

    home = Path(__file__).resolve().parents[2]
    child = subprocess.Popen(
        [sys.executable, "-I", __file__, str(home), kind, *map(str, files)],
        env={name: environ[name] for name in A_PASS if name in environ},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        child.communicate(BYE)


def main(home: str, kind: str, *files: str) -> None:
    """Wait for the end of the run, and see to what it left."""
    if sys.stdin.buffer.read() == BYE:
        return
    sys.path.insert(0, home)  # what follows costs half a second and 40 MB that a run need not spend
    if kind == DEMO:
        from llmpod.cli import demos

        demos.inherit(Path(files[0]), Path(home) / "proxy_fastapi.py")
        return
    from llmpod.cli.room import inherit
    from llmpod.config import environment

    inherit(Path(files[0]), Path(files[1]), environment())


if __name__ == "__main__":
    main(*sys.argv[1:])
