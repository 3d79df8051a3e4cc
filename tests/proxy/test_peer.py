"""Whose a connection is: asked of the kernel one by one, and read from its table where it answers no questions."""

import ctypes
import errno
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address

import pytest

from llmpod.proxy import peer, sockdiag
from llmpod.proxy.sockdiag import End

pytestmark = pytest.mark.skipif(not peer.known(), reason="this system does not say whose a connection is")

KINDS = [
    ("127.0.0.1", "127.0.0.1"),
    ("::1", "::1"),
    ("::", "127.0.0.1"),
    ("::", "::ffff:127.0.0.1"),
    ("::", "::1"),
]
SOCKET_CALL = {"x86_64": 41, "aarch64": 198}  # its number, by machine


@contextmanager
def connected(
    bind: str = "127.0.0.1", to: str = "127.0.0.1"
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client, and the other end of its connection."""
    families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in (bind, to)]
    dual = bind == "::"
    with (
        socket.create_server((bind, 0), family=families[0], dualstack_ipv6=dual) as listener,
        socket.socket(families[1]) as client,
    ):
        client.connect((to, listener.getsockname()[1]))
        accepted, _ = listener.accept()
        with accepted:
            yield client, accepted


def ends(accepted: socket.socket) -> peer.Ends:
    far, own = accepted.getpeername(), accepted.getsockname()
    return peer.Ends(peer.unmapped(far[0]), far[1], peer.unmapped(own[0]), own[1])


def both(found: peer.Ends) -> tuple[End, End]:
    return End(ip_address(found.client), found.client_port), End(ip_address(found.local), found.local_port)


@pytest.mark.parametrize(("bind", "to"), KINDS)
def test_kernel_and_table_say_the_same_for_every_kind_of_address(bind: str, to: str) -> None:
    with connected(bind, to) as (client, accepted):
        inode = os.fstat(client.fileno()).st_ino
        asked = sockdiag.find(*both(ends(accepted)))
        assert asked == peer.in_table(*both(ends(accepted))) == (os.getuid(), inode)
        assert peer.owner(ends(accepted)) == os.getuid()


HOLDS = (
    "import socket, sys\n"
    "held = [socket.create_connection(('127.0.0.1', int(sys.argv[1]))) for _ in range(20)]\n"
    "sys.stdin.read()"
)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_of_many_connections_each_is_its_own_users() -> None:
    """Found by a review: each new connection had the whole table read, 60 ms with 4,000 of them (here about 1)."""
    users = (os.getuid(), 12345, 65534)
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
        argv = ["/usr/bin/python3", "-c", HOLDS, str(listener.getsockname()[1])]
        for uid in users:
            command = ["setpriv", f"--reuid={uid}", "--clear-groups", *argv]
            opened.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))  # ends with its input
        found = [ends(opened.enter_context(listener.accept()[0])) for _ in range(20 * len(users))]
        began = time.process_time()
        owners = [peer.owner(one) for one in found]
        middle = time.process_time()
        read = [peer.in_table(*both(one)) for one in found]
        asking, reading = middle - began, time.process_time() - middle
        assert [sockdiag.find(*both(one)) for one in found] == read
    assert owners == [line.uid for line in read if line is not None]
    assert Counter(owners) == dict.fromkeys(users, 20)
    assert asking < reading / 2


def test_who_listens_there_is_not_who_called() -> None:
    """The kernel, asked for a connection that is no more, names who listens at that end now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = End(ip_address("127.0.0.1"), listener.getsockname()[1])
        nobody = End(ip_address("127.0.0.1"), 9)
        assert sockdiag.find(here, nobody) is None
        assert peer.owner(peer.Ends("127.0.0.1", here.port, "127.0.0.1", 9)) is None


def test_who_is_not_here_is_nobody() -> None:
    with connected() as (_, accepted):
        known = ends(accepted)
        assert peer.owner(known._replace(client="192.0.2.1")) is None
        assert peer.owner(known._replace(client="2001:db8::1", local="::1")) is None
        assert peer.owner(known._replace(client="fe80::1%nowhere", local="fe80::2")) is None
        assert peer.owner(peer.Ends("", 0, "", 0)) is None


def without_netlink() -> None:
    """From now on this process gets none, as in a service with ``RestrictAddressFamilies`` (seccomp(2))."""
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    number, family = 0, 16  # offsets in seccomp_data: the call, its first argument
    lines = [
        (load, 0, 0, number),
        (equal, 0, 3, SOCKET_CALL[platform.machine()]),
        (load, 0, 0, family),
        (equal, 0, 1, socket.AF_NETLINK),
        (give, 0, 0, 0x0005_0000 | errno.EAFNOSUPPORT),  # SECCOMP_RET_ERRNO
        (give, 0, 0, 0x7FFF_0000),  # SECCOMP_RET_ALLOW
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    program = struct.pack("@HP", len(lines), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in ((38, 1, 0, 0, 0), (22, 2, program, 0, 0)):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
        if libc.prctl(*words):
            raise OSError(ctypes.get_errno(), "prctl")


@pytest.mark.skipif(platform.machine() not in SOCKET_CALL, reason="the call's number is not known here")
def test_where_the_kernel_may_not_be_asked_its_table_is_read() -> None:
    script = (
        "from tests.proxy import test_peer as t\n"
        "t.without_netlink()\n"
        "for kind in t.KINDS:\n"
        "    with t.connected(*kind) as (_, accepted):\n"
        "        try: t.sockdiag.find(*t.both(t.ends(accepted)))\n"
        "        except OSError as e: print(e.errno, t.peer.owner(t.ends(accepted)))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.splitlines() == [f"{errno.EAFNOSUPPORT} {os.getuid()}"] * len(KINDS)
