"""Not a listener: whether a TCP port is taken here, and by which process, as far as /proc shows it (Linux)."""

import errno
from pathlib import Path

from llmpod.errors import PortTaken
from llmpod.sockets import bind_error, holds, listening

OTHER_PORT = (
    "take another port: `proxy_port` in the configuration, or for once `make run RUN_ARGS='--port N'`"
)


def is_taken(host: str, port: int) -> bool:
    """Whether somebody listens there; what else is wrong with an address is told by who listens."""
    return bind_error(host, port) == errno.EADDRINUSE


def taken(port: int, by: str = "", *, instead: str = OTHER_PORT) -> PortTaken:
    """The error for it.

    Args:
        port: the one that is taken.
        by: who listens, where that is known better than from /proc.
        instead: how to take another one.
    """
    return PortTaken(
        f"Port {port} is in use by {by or owner(port)}; nothing was started.",
        hint=f"Stop that program, or {instead}.",
    )


def listener(port: int) -> int | None:
    """The pid of the listener; None: nobody, another user's process, or a system without /proc."""
    sockets = listening(port)
    pids = (int(process.name) for process in Path("/proc").glob("[0-9]*"))
    return next((pid for pid in pids if holds(pid, sockets)), None) if sockets else None


def owner(port: int) -> str:
    """The listener in words, for a message."""
    pid = listener(port)
    if pid is None:
        return "another program"
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it has just ended
        return f"another program (pid {pid})"
    if any(word.endswith(b"/proxy_fastapi.py") for word in words):
        return f"another proxy of llmpod (pid {pid})"
    return f"{name} (pid {pid})" if name.isprintable() else f"another program (pid {pid})"
