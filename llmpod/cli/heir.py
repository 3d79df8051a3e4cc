"""Not a supervisor: waits beside a run that nothing else looks after, and ends what it started when it was killed.

A program of its own, in a session of its own, of the standard library alone until it is needed: it reads its standard
input, which the kernel closes when the run dies, however that happens. A run that has cleaned up says goodbye first.
Its arguments are the program's directory, the lock of the run's room and its configuration.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

BYE = b"bye\n"


@contextmanager
def heir(config: Path, lock: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """Have one wait for as long as this lasts.

    Args:
        config: the run's configuration.
        lock: of its room.
        environ: ours, of which the heir gets what a pass needs.
    """
    from llmpod.config.children import A_PASS

    home = Path(__file__).resolve().parents[2]
    child = subprocess.Popen(
        [sys.executable, "-I", __file__, str(home), str(lock), str(config)],
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


def main(home: str, lock: str, config: str) -> None:
    """Wait for the end of the run, and see to what it left."""
    if sys.stdin.buffer.read() == BYE:
        return
    sys.path.insert(0, home)
    from llmpod.cli.room import inherit  # half a second and 40 MB that a run need not spend
    from llmpod.config import environment

    inherit(Path(lock), Path(config), environment())


if __name__ == "__main__":
    main(*sys.argv[1:])
