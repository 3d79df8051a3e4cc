"""Not a reservation: which TCP port of loopback a server could listen on at this moment."""

from collections.abc import Collection

from llmpod.errors import ProviderUnavailable
from llmpod.sockets import bind_error

HOST = "127.0.0.1"
FIRST_PORT = 8101


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    return not bind_error(HOST, port)


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
