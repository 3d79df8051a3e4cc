"""Not a credential: which user's program is at the other end of a loopback connection, from the kernel's table."""

import asyncio
import ipaddress
import os
import sys
from pathlib import Path
from typing import Final, NamedTuple

from uvicorn.protocols.utils import get_local_addr, get_remote_addr

_UID, _INODE = 7, 9  # columns of a line
_TABLES: Final = {4: Path("/proc/net/tcp"), 6: Path("/proc/net/tcp6")}


class Ends(NamedTuple):
    """Both ends of a connection as text and port: the client's, then ours."""

    client: str
    client_port: int
    local: str
    local_port: int


def ends_of(transport: asyncio.Transport) -> Ends:
    """Both ends of a connection; empty where there are none any more."""
    client, port = get_remote_addr(transport) or ("", 0)
    local, local_port = get_local_addr(transport) or ("", 0)
    return Ends(unmapped(client), port, unmapped(local), local_port or 0)


def known() -> bool:
    """Whether this system says whose connection one is."""
    return _TABLES[4].exists()


def owner(ends: Ends) -> int | None:
    """The uid of the program at the client's end; None when it is not on this machine or already gone.

    The table (proc(5)) holds for each socket its own end, the far one, in the eighth column the uid and in the tenth
    the inode. A socket that its program has closed belongs to nobody: its inode is 0, and its uid, then 0, too, is
    not that of root.
    """
    try:
        mine, far = (_spelled(*ends[:2]), _spelled(*ends[2:]))
        table = _TABLES[4 if len(mine) < 20 else 6].read_bytes()
    except (OSError, ValueError):
        return None
    at = table.find(b": %b %b " % (mine, far))
    if at < 0:
        return None
    columns = table[at : table.find(b"\n", at)].split()
    return int(columns[_UID]) if int(columns[_INODE]) else None


def is_same_user(ends: Ends) -> bool:
    """Whether the client is a program of the user who runs this one, or of root."""
    return owner(ends) in (os.getuid(), 0)


def unmapped(address: str) -> str:
    """An IPv4 address as everybody writes it, on a socket for both kinds, too (RFC 4291, 2.5.5.2)."""
    return address.removeprefix("::ffff:") if "." in address else address


def _spelled(address: str, port: int) -> bytes:
    """An end as the table spells it: words of 32 bits in the machine's byte order, and the port, in hex."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    packed = (getattr(parsed, "ipv4_mapped", None) or parsed).packed
    words = [int.from_bytes(packed[n : n + 4], sys.byteorder) for n in range(0, len(packed), 4)]
    return b"".join(b"%08X" % word for word in words) + b":%04X" % port
