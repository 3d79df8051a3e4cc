"""Not a listener: whether one could listen on a TCP port of this machine, and who does, as far as /proc shows it
(Linux).
"""

import socket
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp (proc(5))


def bind_error(host: str, port: int) -> int:
    """The errno with which a server would fail to listen there; 0: it would not.

    What is left of closed connections does not count, as for servers.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as e:
            return e.errno or -1
    return 0


def listening(port: int) -> frozenset[str]:
    """The sockets that listen on a port, named as in ``/proc/PID/fd``; none on a system without /proc."""
    return frozenset(f"socket:[{inode}]" for inode in _inodes(port))


def holds(pid: int, sockets: Collection[str]) -> bool:
    """Whether a process has one of these sockets; False for one of another user, and one that has ended."""
    with suppress(OSError):
        return any(str(link.readlink()) in sockets for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def _inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
