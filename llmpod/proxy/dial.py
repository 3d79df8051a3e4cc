"""Not a pool: makes one connection to a model server, to where its name leads now and nowhere else.

Each address is looked at before anything is sent there: a name may lead anywhere, by mistake or on purpose, and
metadata services of clouds hand out credentials to whoever asks (T14).
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final, TypeVar

from llmpod.errors import UpstreamUnreachable, UpstreamUntrusted
from llmpod.places import is_address, no_server_at
from llmpod.proxy.origin import Origin

DEAD_PEER_MS: Final = 30_000  # unacknowledged data for this long means the peer is gone (F6)
P = TypeVar("P", bound=asyncio.Protocol)


async def dial(origin: Origin, make: Callable[[], P], tls: ssl.SSLContext | None) -> P:
    """Connect and return the protocol of the connection.

    Args:
        origin: whom to connect to.
        make: the protocol of a connection.
        tls: with what to verify the server; None: in the clear.

    Raises:
        UpstreamUnreachable: its name leads to where no model server is.
        OSError: nobody answers at any of its addresses; of the last one of them.
    """
    loop = asyncio.get_running_loop()
    addresses = await _addresses(origin)
    for number, address in enumerate(addresses, 1):
        try:
            transport, protocol = await loop.create_connection(
                make, address, origin.port, ssl=tls, server_hostname=origin.host if tls else None
            )
        except ssl.SSLError:  # whoever answers there is wrong; another address is no better
            raise
        except OSError:
            if number == len(addresses):
                raise
        else:
            _notice_dead_peers(transport.get_extra_info("socket"))
            return protocol
    raise UpstreamUnreachable(f"The model server's name ({origin.host}) has no address.")


async def _addresses(origin: Origin) -> list[str]:
    """Where it is, in the system's order; all of them, or none if one is no place for a server."""
    if is_address(origin.host):
        found = [origin.host]
    else:
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        found = list(dict.fromkeys(str(info[4][0]) for info in infos))
    for address in found:
        if what := no_server_at(address):
            raise UpstreamUnreachable(
                f"The model server's name ({origin.host}) leads to {address}, which is {what}.",
                hint="Nothing was sent there. Check the endpoint's URL and the name server.",
            )
    return found


def verifying() -> ssl.SSLContext:
    """The system's authorities, TLS 1.2 or newer."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def overheard(origin: Origin) -> UpstreamUnreachable:
    """Why nothing is sent to another machine over http (T15)."""
    return UpstreamUnreachable(
        f"The model server ({origin}) is on another machine and has no TLS: others could read all that is sent.",
        hint="Nothing was sent there. Use https or a tunnel, or allow it: `allow_plain_http`.",
    )


def unreachable(origin: Origin, error: OSError) -> UpstreamUnreachable:
    """What a failure to connect means, in our words."""
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", "") or error.reason or "handshake failed"
        return UpstreamUntrusted(f"TLS with the model server ({origin}) failed: {reason}.")
    if isinstance(error, socket.gaierror):
        return UpstreamUnreachable(f"The model server's name ({origin.host}) cannot be resolved.")
    return UpstreamUnreachable(f"The model server ({origin}) cannot be reached: {error.strerror or error}.")


def _notice_dead_peers(sock: socket.socket | None) -> None:
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)
