"""A webhook service on loopback: it answers as it is told and remembers what it got. Not a mock: real HTTP."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from llmpod.config import Notification
from llmpod.lifecycle.events import EventLog
from llmpod.model import Event, EventKind
from tests.support.net import HOST

NOW = 1_795_000_000.0
SECRET = "s3cr3t-path"


@dataclass(frozen=True)
class Got:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Hook:
    """The service. ``answers`` are (status, headers), used up one by one; then 204."""

    url: str
    got: list[Got] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    before: Callable[[], None] = lambda: None


@contextmanager
def webhook(path: str = f"/services/T0/B0/{SECRET}") -> Iterator[Hook]:
    """Runs until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hook.got.append(Got(self.path, dict(self.headers.items()), body))
            hook.before()
            status, headers = hook.answers.pop(0) if hook.answers else (204, {})
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self) -> None:
            """A redirect that is followed may come as GET."""
            self.do_POST()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Quiet."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    hook = Hook(f"http://{HOST}:{server.server_address[1]}{path}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silence(greeting: bytes = b"") -> Iterator[str]:
    """The URL of a service that accepts connections, may say ``greeting`` over and over, and never answers."""
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        peers: list[socket.socket] = []
        while not over.is_set():
            try:
                peer, _ = listener.accept()
                peers.append(peer)
            except TimeoutError:
                pass
            for peer in peers:
                try:
                    peer.sendall(greeting)
                except OSError:
                    continue
        for peer in peers:
            peer.close()

    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(0.05)
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}/{SECRET}"
        finally:
            over.set()
            thread.join()


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


def to(url: str, shape: str = "json", **more: object) -> Notification:
    return Notification.model_validate({"url": url, "format": shape, **more})


def tell(log: EventLog, text: str = "pod p1", kind: EventKind = EventKind.CREATED, at: float = NOW) -> None:
    log.append(Event(kind, "default", text, at))


def texts(hook: Hook) -> list[str]:
    return [json.loads(got.body)["text"] for got in hook.got]
