"""Loopback sockets for tests. Never another address."""

import socket

HOST = "127.0.0.1"


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment.

    For programs that must be told a number; what can bind port 0 and report it should, since another process
    may take this one first.
    """
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex((HOST, port)) == 0
