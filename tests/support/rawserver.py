"""Servers that are told every byte they send. Not for anything that a simulator or `http.server` can say."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

from tests.support.net import HOST

Talk = Callable[[socket.socket, threading.Event], None]


@contextmanager
def raw_server(talk: Talk) -> Iterator[str]:
    """Its address. `talk` gets each connection and an event that is set when all is over."""
    over, threads = threading.Event(), list[threading.Thread]()

    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            talk(connection, over)

    def serve() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                connection.settimeout(5)
                threads.append(threading.Thread(target=one, args=(connection,)))
                threads[-1].start()

    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(0.1)
        threads.append(threading.Thread(target=serve))
        threads[0].start()
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}"
        finally:
            over.set()
            threads[0].join()
            for thread in threads:
                thread.join()


def dripping() -> AbstractContextManager[str]:
    """A server whose header never ends: a byte now and then, long before any time-out of a read."""

    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-A: ")
        while not over.wait(0.1):
            connection.sendall(b"a")

    return raw_server(talk)


def answering(
    body: str, *, status: str = "200 OK", headers: Sequence[str] = ()
) -> AbstractContextManager[str]:
    """A server with one answer to everything."""

    def talk(connection: socket.socket, _over: threading.Event) -> None:
        connection.recv(65536)
        data = body.encode()
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", "Connection: close", *headers, "", ""]
        connection.sendall("\r\n".join(head).encode("latin-1") + data)

    return raw_server(talk)
