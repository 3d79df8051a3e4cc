"""Not a list of processes: what tells one process of this machine from every other one, later ones included."""

import os
from pathlib import Path

from llmpod.model import ProcessId


def boot_id() -> str:
    """A name for this boot of the machine; pids from another boot mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def process_id(pid: int) -> ProcessId | None:
    """The identity of a living process, or None (gone or a zombie).

    The start time is field 22 of ``/proc/PID/stat`` (proc(5)); it stands after the command, which may hold spaces.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2]
    except OSError:
        return _without_proc(pid)
    state, started = fields.split()[0], int(fields.split()[19])
    return None if state in "ZX" else ProcessId(pid, started, boot_id())


def _without_proc(pid: int) -> ProcessId | None:
    """macOS has no /proc: there a pid is checked for life only, and a token of ours tells processes apart."""
    if Path("/proc/self").exists():
        return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return ProcessId(pid, 0, boot_id())
