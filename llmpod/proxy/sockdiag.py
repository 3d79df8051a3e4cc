"""Not a table of connections: asks Linux for one TCP socket by its two ends, and whose it is.

A question costs the same however many connections there are, which reading /proc/net/tcp does not. The messages are
those of sock_diag(7), in the layout of linux/inet_diag.h; netlink(7) has their frame.
"""

import errno
import os
import socket
import struct
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG (linux/netlink.h)
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY (linux/sock_diag.h)
_ERROR, _REQUEST = 2, 1  # NLMSG_ERROR, NLM_F_REQUEST
_LISTENS: Final = 10  # TCP_LISTEN (linux/tcp_states.h)
_FRAME: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ERRNO: Final = struct.Struct("=i")
# inet_diag_req_v2: family, protocol, extensions, padding, states, then the socket. A socket is two ports in network
# order, two addresses of 16 bytes, an interface (0: any), and a cookie of 8 bytes that may be unknown.
_QUESTION: Final = struct.Struct("=BBBxI2s2s16s16sI8s")
_NO_COOKIE: Final = b"\xff" * 8  # INET_DIAG_NOCOOKIE
# inet_diag_msg: family, state, timer and retransmissions, the socket; expiry and two queues, then uid and inode.
_ANSWER: Final = struct.Struct("=BB2x48s12xII")
_ALL_STATES: Final = 0xFFFF_FFFF


class End(NamedTuple):
    """One end of a connection."""

    address: IPv4Address | IPv6Address
    port: int


class Found(NamedTuple):
    """A socket: the user whose it is, and its inode, 0 when no program has it open any more."""

    uid: int
    inode: int


def find(own: End, far: End) -> Found | None:
    """The connected TCP socket of this machine with these ends, both of one kind; None when there is none.

    Args:
        own: the end that the socket itself has.
        far: the other one.

    Raises:
        OSError: the kernel does not answer such questions, or not ours (a sandbox, an exotic kernel), or would have
            to know by which interface (a link-local address).
    """
    found = _ask(own, far)
    if found is None and (_is_of_a_link(own) or not _answers()):
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
    return None if found is None or found[0] == _LISTENS else Found(*found[1:])


def _is_of_a_link(end: End) -> bool:
    return end.address.version == 6 and end.address.is_link_local


@cache
def _answers() -> bool:
    """Whether this kernel can be asked: to one that cannot, no socket is known, not even one that is there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = End(IPv4Address("127.0.0.1"), listener.getsockname()[1])
        return _ask(here, End(IPv4Address(0), 0)) is not None


def _ask(own: End, far: End) -> tuple[int, int, int] | None:
    """State, uid and inode of what the kernel finds: the connection or, without one, who listens at ``own``."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _SOCK_DIAG) as kernel:
        kernel.sendto(_question(own, far), (0, 0))  # it answers within the call
        answer = kernel.recv(4096)
    kind = _FRAME.unpack_from(answer)[1]
    if kind == _ERROR:
        number = -_ERRNO.unpack_from(answer, _FRAME.size)[0]
        if number == errno.ENOENT:
            return None
        raise OSError(number, os.strerror(number))
    _, state, _, uid, inode = _ANSWER.unpack_from(answer, _FRAME.size)
    return state, uid, inode


def _question(own: End, far: End) -> bytes:
    ports = [end.port.to_bytes(2, "big") for end in (own, far)]
    addresses = [end.address.packed for end in (own, far)]  # an IPv4 address is the first four bytes
    family = socket.AF_INET if own.address.version == 4 else socket.AF_INET6
    body = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES, *ports, *addresses, 0, _NO_COOKIE)
    return _FRAME.pack(_FRAME.size + len(body), _BY_FAMILY, _REQUEST, 1, 0) + body
