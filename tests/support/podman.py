"""A real podman's Docker-compatible socket, where its programs are there (root, Linux); nothing is pulled.

With runc: crun refuses machines that have both kinds of control groups.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support import dockerd
from tests.support.wait import eventually

_NEEDED = ("podman", "conmon", "runc")
_CONF = """[containers]
netns = "host"
log_driver = "k8s-file"
default_sysctls = []
default_ulimits = []
[engine]
lock_type = "file"  # not in /dev/shm, where all podmans of a machine meet
"""


def why_not() -> str:
    """Why it cannot run here; empty when it can."""
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)} (scripts/components)" if missing else dockerd.may_not()


@contextmanager
def podman() -> Iterator[Path]:
    """Its socket, while it runs; an image without any file is there."""
    home = Path(tempfile.mkdtemp(prefix="llmpod-podman."))
    groups = _groups()
    try:
        with ExitStack() as stack:
            (home / "containers.conf").write_text(_CONF)
            env = {**os.environ, "CONTAINERS_CONF": str(home / "containers.conf")}
            argv, engine = _command(home), home / "podman.sock"
            service = [*argv, "system", "service", "--time", "0", f"unix://{engine}"]
            stack.callback(_end_of_all, argv, env)
            stack.enter_context(dockerd.program(service, home / "podman.log", env))
            eventually(lambda: dockerd.ask(engine, "GET", "/_ping")[0] == 200, within=60, ignoring=OSError)
            dockerd.make_image(engine)
            yield engine
    finally:
        dockerd.unmount(home)
        shutil.rmtree(home, ignore_errors=True)
        for group in sorted(_groups() - groups, reverse=True):  # the inner ones first
            with suppress(OSError):
                group.rmdir()


def _command(home: Path) -> list[str]:
    places = ["--root", str(home / "root"), "--runroot", str(home / "run"), "--tmpdir", str(home / "tmp")]
    (home / "tmp").mkdir()
    kinds = ["--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
    return ["podman", *places, *kinds, "--events-backend", "file"]


def _end_of_all(argv: Sequence[str], env: Mapping[str, str]) -> None:
    done = [*argv, "rm", "--all", "--force", "--time", "0"]
    subprocess.run(done, env=env, check=False, capture_output=True, timeout=60)


def _groups() -> set[Path]:
    """Podman's control groups, which it leaves behind."""
    found = Path("/sys/fs/cgroup").glob("*/libpod*")
    return {group for top in found for group in (top, *top.rglob("*/"))}
