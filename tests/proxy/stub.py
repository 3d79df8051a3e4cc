"""Not the simulator: a model server that does to the byte what a test says, on a real loopback socket.

Each connection has a thread; for each request the current script is called with a :class:`Turn`.
"""

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tests.support.wait import eventually

CHAT = "/v1/chat/completions"


class _HangUp(Exception):
    """Ends a connection's thread, which closes its socket."""


@dataclass
class Turn:
    """One request, and the means to answer it."""

    sock: socket.socket
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    gone_at: list[float] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def head(self, *lines: str, status: str = "200 OK") -> None:
        self.send("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode())

    def reply(self, body: bytes, *lines: str, status: str = "200 OK", kind: str = "application/json") -> None:
        self.head(f"content-type: {kind}", f"content-length: {len(body)}", *lines, status=status)
        self.send(body)

    def stream(self) -> None:
        """The head of a chunked stream of events; then ``chunk`` each, then ``last``."""
        self.head("content-type: text/event-stream; charset=utf-8", "transfer-encoding: chunked")

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def last(self) -> None:
        self.send(b"0\r\n\r\n")

    def close(self) -> NoReturn:
        """Close the connection now; the script ends here."""
        raise _HangUp

    def reset(self) -> NoReturn:
        """The same, so that the peer sees RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _HangUp

    def wait_gone(self, *, within: float = 5.0) -> bool:
        """Whether the proxy closes this connection in time."""
        self.sock.settimeout(within)
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


Script = Callable[[Turn], None]


def chat(text: str = "Hello", *, finish: str = "stop", model: str = "m") -> bytes:
    """A whole chat completion as JSON."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    document = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": usage,
    }
    return json.dumps(document).encode()


def frames(*texts: str, usage: bool = False, done: bool = True, finish: str | None = "stop") -> list[bytes]:
    """The same as events of a stream."""
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def event(**members: Any) -> bytes:
        return b"data: " + json.dumps({**base, **members}).encode() + b"\n\n"

    def piece(delta: dict[str, str], reason: str | None = None) -> bytes:
        return event(choices=[{"index": 0, "delta": delta, "finish_reason": reason}])

    out = [piece({"role": "assistant", "content": ""}), *(piece({"content": text}) for text in texts)]
    if finish is not None:
        out.append(piece({}, finish))
    if usage:
        out.append(event(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}))
    return [*out, b"data: [DONE]\n\n"] if done else out


def plain(turn: Turn) -> None:
    """Answers chats, streamed when asked, with usage when asked; echoes the last message."""
    if turn.method != "POST" or not turn.target.endswith("/completions"):
        turn.reply(
            json.dumps({"method": turn.method, "target": turn.target, "body": turn.body.decode()}).encode()
        )
        return
    asked = turn.json
    text = f"you said {asked['messages'][-1]['content']}"
    if not asked.get("stream"):
        turn.reply(chat(text))
        return
    turn.stream()
    for frame in frames(
        *text.split(" "), usage=bool((asked.get("stream_options") or {}).get("include_usage"))
    ):
        turn.chunk(frame)
    turn.last()


def one_by_one(sent: Sequence[bytes], go: threading.Semaphore) -> Callable[[Turn], None]:
    """A script that streams these chunks, each only after one more ``release``."""

    def script(turn: Turn) -> None:
        turn.stream()
        for chunk in sent:
            assert go.acquire(timeout=5)
            turn.chunk(chunk)
        turn.last()

    return script


def halfway(go: threading.Event) -> Callable[[Turn], None]:
    """A script that streams the first event of an answer, and the rest once ``go`` is set."""

    def script(turn: Turn) -> None:
        first, *rest = frames("a")
        turn.stream()
        turn.chunk(first)
        assert go.wait(10)
        turn.chunk(b"".join(rest))
        turn.last()

    return script


class Stub:
    """The server. ``script`` and ``tls`` may be changed at any time; ``turns`` are the requests so far."""

    def __init__(self, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.tls = tls
        self.script: Script = plain
        self.turns: list[Turn] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server((host, port))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_turns(self, count: int) -> list[Turn]:
        eventually(lambda: len(self.turns) >= count)
        return self.turns

    def close_connections(self) -> None:
        """Close every connection from the server's side."""
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def close(self) -> None:
        with suppress(OSError):  # macOS: a listener has no such half
            self._listener.shutdown(socket.SHUT_RDWR)  # a thread that waits in accept would take one more
        self._listener.close()
        self.close_connections()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        if self.tls is not None:
            try:
                sock = self.tls.wrap_socket(sock, server_side=True)
            except OSError:  # the client does not trust us: that is what some tests want to see
                sock.close()
                return
        with suppress(OSError, ValueError, _HangUp), sock, sock.makefile("rb") as reader:
            while (turn := self._read(sock, reader)) is not None:
                self.turns.append(turn)
                self.script(turn)

    @staticmethod
    def _read(sock: socket.socket, reader: Any) -> Turn | None:
        first = reader.readline()
        if not first:
            return None
        method, target, _ = first.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (line := reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return Turn(sock, method, target, headers, reader.read(int(headers.get("content-length", 0))))


@contextmanager
def stub(*, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> Iterator[Stub]:
    server = Stub(tls, host=host, port=port)
    try:
        yield server
    finally:
        server.close()
