"""A server that answers whatever it was told to, as wrongly as it was told to. Not the simulator: that is honest."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Stubborn:
    """One answer, byte for byte, to every request; ``drip`` seconds pass after each byte, ``asked`` is what came."""

    answer: bytes
    drip: float = 0.0
    asked: list[bytes] = field(default_factory=list)
    url: str = ""

    def serve(self, client: socket.socket, over: threading.Event) -> None:
        with client, suppress(OSError):
            self.asked.append(_request(client))
            if not self.drip:
                client.sendall(self.answer)
                return
            for byte in self.answer:
                if over.wait(self.drip):
                    return
                client.sendall(bytes([byte]))


def _request(client: socket.socket) -> bytes:
    """Head and body of one request."""
    text = b""
    while b"\r\n\r\n" not in text and (piece := client.recv(65536)):
        text += piece
    head, _, body = text.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.splitlines()
            if line.lower().startswith(b"content-length:")
        ),
        0,
    )
    while len(body) < length and (piece := client.recv(65536)):
        body += piece
    return head + b"\r\n\r\n" + body


@contextmanager
def stubborn(answer: bytes, *, drip: float = 0.0) -> Iterator[Stubborn]:
    """Listens on loopback until the end of the block."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        made = Stubborn(answer, drip, url=f"http://127.0.0.1:{listener.getsockname()[1]}/graphql")

        def loop() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    client, _ = listener.accept()
                    made.serve(client, over)

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield made
        finally:
            over.set()
            thread.join()


def http(status: int, body: bytes, kind: str = "application/json", *more: str) -> bytes:
    """A whole answer."""
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, *more, "", ""]).encode() + body
