"""Not a reservation: which TCP port of loopback a server could listen on at this moment."""

import socket
from collections.abc import Collection

from llmpod.errors import ProviderUnavailable

HOST = "127.0.0.1"
FIRST_PORT = 8101


def is_free(port: int) -> bool:
    """Whether a server could listen there; what is left of closed connections does not count, as for servers."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(wanted: int | None, *, promised: Collection[int] = ()) -> int:
    """The one wanted, or the first free one from 8101 upwards.

    Args:
        wanted: a certain port.
        promised: what servers were given that may not listen yet; vLLM does half a minute after its start.

    Raises:
        ProviderUnavailable: somebody listens there, or is to; it may end.
    """
    if wanted is not None:
        if wanted in promised or not is_free(wanted):
            raise ProviderUnavailable(f"The port {wanted} is in use by another program.", retry_after=5)
        return wanted
    others = (port for port in range(FIRST_PORT, 65536) if port not in promised)
    port = next(filter(is_free, others), None)
    if port is None:
        raise ProviderUnavailable(f"No port from {FIRST_PORT} upwards is free.", retry_after=5)
    return port
