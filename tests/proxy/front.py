"""Not the proxy: starts it as a process of its own, through its entry point, and talks to it over raw sockets."""

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any, Self, cast

from tests.proxy.stub import CHAT
from tests.support.canaries import NOT_OURS, Canaries
from tests.support.pages import pages, pod_keys
from tests.support.process import PYTHON, Running, running
from tests.support.source import ROOT
from tests.support.wait import eventually

SCRIPT = ROOT / "proxy_fastapi.py"


class _Reader:
    """One buffer for all answers of a connection: http.client would lose what it read of the next one."""

    def __init__(self, sock: socket.socket) -> None:
        self._file = sock.makefile("rb")

    def makefile(self, _mode: str) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        """Not yet: the next answer needs it."""

    def really_close(self) -> None:
        self._file.close()


@dataclass
class Reply:
    """A whole answer. ``cut`` when the body ended before its framing said so."""

    status: int
    headers: dict[str, str]
    body: bytes
    cut: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def cache(self) -> str:
        return self.headers.get("x-cache", "")


class Client:
    """One connection to the proxy."""

    def __init__(self, port: int, *, timeout: float = 10.0) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = _Reader(self.sock)

    def fresh_reader(self) -> None:
        """After ``sock`` was replaced, by TLS."""
        self._reader = _Reader(self.sock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; what was not read is lost."""
        self._reader.really_close()
        self.sock.close()

    def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        lines = {
            "Host": "localhost",
            **({"Content-Type": "application/json"} if body else {}),
            **(headers or {}),
        }
        if body or method == "POST":
            lines["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.sock.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)

    def open_reply(self, method: str = "POST") -> HTTPResponse:
        """Status and header read; the body is the caller's to read."""
        response = HTTPResponse(cast("socket.socket", self._reader), method=method)
        response.begin()
        return response

    def reply(self, method: str = "POST") -> Reply:
        return self.rest(self.open_reply(method))

    @staticmethod
    def rest(response: HTTPResponse) -> Reply:
        """What is left of an answer, to its end or its cut."""
        headers = {name.lower(): value for name, value in response.getheaders()}
        body, cut = b"", False
        try:
            while chunk := response.read1(65536):
                body += chunk
            cut = bool(response.length)
        except (ConnectionResetError, IncompleteRead):
            cut = True
        return Reply(response.status, headers, body, cut)


@dataclass
class Proxy:
    """A running proxy."""

    process: Running
    port: int

    def client(self) -> Client:
        return Client(self.port)

    def ask(
        self, body: Any, *, path: str = CHAT, method: str = "POST", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request on a connection of its own."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self.client() as client:
            client.send(method, path, raw, headers)
            return client.reply(method)

    def get(self, path: str, headers: Mapping[str, str] | None = None, *, method: str = "GET") -> Reply:
        return self.ask(b"", path=path, method=method, headers=headers)

    def metrics(self) -> dict[str, Any]:
        counted: dict[str, Any] = self.get("/metrics").json
        return counted

    def logs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.process.err.splitlines() if line]


def settings(cache: Path, endpoint: str | None = None, **more: str) -> dict[str, str]:
    base = {"PORT": "0", "CACHE_DIR": str(cache), "LOG_LEVEL": "DEBUG"}
    return base | ({"RUNPOD_ENDPOINT": endpoint} if endpoint else {}) | more


@contextmanager
def proxy(environ: Mapping[str, str], *arguments: str, argv: Sequence[str | Path] = ()) -> Iterator[Proxy]:
    """The proxy on a port of its choice. Fails the test when it logs a bug of its own or shows a secret (G20)."""
    command = argv or (PYTHON, SCRIPT)
    planted = Canaries.fresh(NOT_OURS)
    with running([*command, *arguments], env={**planted.values, **environ}) as process:
        front = Proxy(process, eventually(lambda: _port(process), within=15) or 0)
        yield front
        named = ('"event": "bug"', '"event": "library"')
        bugs = [line for line in process.err.splitlines() if any(name in line for name in named)]
        assert not bugs, bugs
        said: dict[str, str | bytes] = {
            "the log": process.err,
            "the output": process.out,
            **pages(front.port),
        }
        roots = [Path(environ[name]) for name in ("CACHE_DIR", "LLMPOD_STATE") if environ.get(name)]
        secrets = planted.plus(**_secrets(environ))
        assert not (seen := secrets.sightings(said, *roots, pid=process.pid)), seen


def _secrets(environ: Mapping[str, str]) -> dict[str, str | Path | None]:
    """What a proxy with these settings knows and must not show, by kind."""
    from tests.proxy.keys import KEYS  # it stands on this module

    found: dict[str, str | Path | None] = {"endpoint key": environ.get("RUNPOD_ENDPOINT_KEY")}
    if (key := Path(environ.get("SSL_KEY", "/nowhere"))).exists():
        found["TLS key"] = key
    if "LLMPOD_KEYS_FILE" in environ:
        found |= {f"caller key {name}": key for name, key in KEYS.items()}
    if "LLMPOD_STATE" in environ:
        found |= pod_keys(Path(environ["LLMPOD_STATE"]))
    return found


def _port(process: Running) -> int | None:
    assert process.code is None, f"the proxy ended with {process.code}: {process.err}"
    for line in process.err.splitlines():
        if '"listening"' in line:
            return int(json.loads(line)["url"].rpartition("/v1")[0].rpartition(":")[2])
    return None


def chat_body(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def raw_chat(
    text: str, *, stream: bool = False, path: str = CHAT, lines: str = "", version: str = "1.1"
) -> bytes:
    """The bytes of a request; ``lines`` are more header lines."""
    body = json.dumps(chat_body(text, **({"stream": True} if stream else {}))).encode()
    head = f"POST {path} HTTP/{version}\r\nhost: localhost\r\ncontent-type: application/json\r\n{lines}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
