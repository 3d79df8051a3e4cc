"""A real Docker Engine on a private socket, where its programs are there (root, Linux); nothing is pulled.

Its containerd runs beside it, as under systemd: a dockerd that has started its own cannot come back after SIGKILL.
"""

import http.client
import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support import procfs
from tests.support.wait import eventually

NEEDED = ("dockerd", "containerd", "containerd-shim-runc-v2", "runc")
IMAGE = "empty:latest"
CAP_SYS_ADMIN = 21  # linux/capability.h


def why_not() -> str:
    """Why it cannot run here; empty when it can."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)} (scripts/components)" if missing else may_not()


def may_not() -> str:
    """Why containers cannot run here, whoever makes them; empty when they can."""
    if os.geteuid() != 0:
        return "needs root"
    may = _capabilities() >> CAP_SYS_ADMIN & 1 and os.access("/sys/fs/cgroup", os.W_OK)
    return "" if may else "may not mount or make control groups here, as in most containers"


def _capabilities() -> int:
    text = Path("/proc/self/status").read_text()
    return next((int(line.split()[1], 16) for line in text.splitlines() if line.startswith("CapEff:")), 0)


@contextmanager
def dockerd() -> Iterator[Path]:
    """Its socket, while it runs; an image without any file is there."""
    home = Path(tempfile.mkdtemp(prefix="llmpod-dockerd."))
    try:
        with ExitStack() as stack:
            stack.callback(_end_of_all, home)
            _containerd(home, stack)
            engine = home / "docker.sock"
            argv = ["dockerd", "-H", f"unix://{engine}", "--containerd", str(home / "ctd.sock")]
            argv += ["--data-root", str(home / "data"), "--exec-root", str(home / "exec")]
            argv += ["--pidfile", str(home / "pid"), "--iptables=false", "--ip6tables=false"]
            argv += ["--bridge=none", "--storage-driver=vfs"]
            stack.enter_context(program(argv, home / "dockerd.log"))
            eventually(lambda: ask(engine, "GET", "/_ping")[0] == 200, within=60, ignoring=OSError)
            make_image(engine)
            yield engine
    finally:
        unmount(home)
        shutil.rmtree(home, ignore_errors=True)


def ask(
    engine: Path, method: str, path: str, body: bytes = b"", *, kind: str = "application/json"
) -> tuple[int, bytes]:
    """One request past llmpod, as a person makes one."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(str(engine))
        connection.request(method, path, body or None, {"Content-Type": kind} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _containerd(home: Path, stack: ExitStack) -> None:
    config = home / "containerd.toml"
    config.write_text(
        f'version = 2\nroot = "{home}/ctd"\nstate = "{home}/ctd-run"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{home}/ctd.sock"\n'
    )
    stack.enter_context(program(["containerd", "-c", str(config)], home / "containerd.log"))
    eventually((home / "ctd.sock").exists, within=30)


@contextmanager
def program(
    argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """It, while it runs; ended in the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def make_image(engine: Path) -> None:
    """A tar of empty directories is an image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("tmp", "proc", "dev", "sys", "etc"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
    path = "/images/create?fromSrc=-&repo=empty&tag=latest"
    status, text = ask(engine, "POST", path, buffer.getvalue(), kind="application/x-tar")
    assert status == 200, text


def _end_of_all(home: Path) -> None:
    """Containers outlive their daemons: their shims carry our directory in their arguments."""
    for process in procfs.descendants(os.getpid()):
        if str(home) in process.command and "shim" in process.command:
            for below in procfs.descendants(process.pid):
                below.kill()
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def unmount(home: Path) -> None:
    """Undo what is mounted below a directory."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(str(home))), reverse=True):
        subprocess.run(["umount", mount], check=False, capture_output=True)
