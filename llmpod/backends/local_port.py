"""Not a reservation: which TCP port of loopback a server could listen on at this moment."""

import os
import socket
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from llmpod.errors import ProviderUnavailable
from llmpod.sockets import bind_error

HOST = "127.0.0.1"
FIRST_PORT = 8101
TURN_SECONDS = 5.0  # a start takes a tenth of a second


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    return not bind_error(HOST, port)


@contextmanager
def in_turn() -> Iterator[None]:
    """Choose a port and start the server that is to listen there, one of this user's programs at a time.

    Until the server bears its port in its environment, other installations cannot see that it is promised. What is
    held is a name in the kernel (an abstract socket, unix(7)): it ends with its holder, however that ends. Where there
    are none (not Linux), or somebody sits on it, it goes on as if alone.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as turn:
        limit = time.monotonic() + TURN_SECONDS
        while sys.platform == "linux" and time.monotonic() < limit:
            try:
                turn.bind(f"\0llmpod ports of {os.geteuid()}")
                break
            except OSError:
                time.sleep(0.01)
        yield


def free_port(wanted: int | None, *, promised: Collection[int] = ()) -> int:
    """The one wanted, or the first free one from 8101 upwards.

    Args:
        wanted: by the configuration.
        promised: to servers that may not listen yet: many load their model first.

    Raises:
        ProviderUnavailable: somebody listens there, or is to; it may end.
    """
    if wanted is not None:
        if wanted in promised or not is_free(wanted):
            raise ProviderUnavailable(f"The port {wanted} is in use by another program.", retry_after=5)
        return wanted
    port = next((p for p in range(FIRST_PORT, 65536) if p not in promised and is_free(p)), None)
    if port is None:
        raise ProviderUnavailable(f"No port from {FIRST_PORT} upwards is free.", retry_after=5)
    return port
