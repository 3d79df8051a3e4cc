"""Not a client for everything: the Docker Engine's HTTP API on its unix socket, as far as containers need it.

Podman's compatible socket speaks the same (https://docs.docker.com/reference/api/engine/, seen with Engine 20.10 and
podman 4.3). Paths have no version, so each engine answers in its own.
"""

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from llmpod.errors import BadCredentials, ProviderUnavailable
from llmpod.text import one_line

MOST_BYTES = 16 * 2**20
QUICK_SECONDS = 30.0


class Cut(ProviderUnavailable):
    """The request was sent, and no whole answer came: what it ordered may have happened."""


class Answer:
    """Status and body of one answer; the body is JSON, text or raw log frames."""

    def __init__(self, status: int, content: bytes) -> None:
        self.status = status
        self.content = content

    @property
    def document(self) -> Any:
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None

    @property
    def message(self) -> str:
        """What the engine says is wrong."""
        found = self.document
        text = found.get("message") or found.get("cause") if isinstance(found, dict) else None
        return one_line(str(text or self.content[:200].decode(errors="replace")), 300)


class Engine:
    """One engine.

    Args:
        socket_path: its unix socket.
    """

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        seconds: float = QUICK_SECONDS,
    ) -> Answer:
        """One request, once.

        Raises:
            BadCredentials: this user may not use the socket.
            Cut: it was sent and not answered in whole.
            ProviderUnavailable: it was not sent.
        """
        connection = _UnixConnection(self._path, seconds)
        try:
            self._connect(connection)
            data = None if body is None else json.dumps(body).encode()
            headers = {} if data is None else {"Content-Type": "application/json"}
            connection.request(method, path + (f"?{urlencode(query)}" if query else ""), data, headers)
            response = connection.getresponse()
            content = response.read(MOST_BYTES)
            if response.length:  # with a limit, read() takes a body that was cut off for a whole one
                raise http.client.IncompleteRead(content, response.length)
            return Answer(response.status, content)
        except (OSError, http.client.HTTPException) as e:
            raise Cut(f"The container engine at {self._path} broke off ({type(e).__name__}).") from None
        finally:
            connection.close()

    def _connect(self, connection: "_UnixConnection") -> None:
        try:
            connection.connect()
        except PermissionError:
            raise BadCredentials(
                f"This user may not use {self._path}.",
                hint="Join the group that owns it (`sudo usermod -aG docker $USER`, then log in again).",
            ) from None
        except OSError as e:
            raise ProviderUnavailable(
                f"No container engine answers at {self._path} ({e.strerror or type(e).__name__}).",
                hint="Start it, or set `docker.socket` (podman: `podman system service`).",
                retry_after=10,
            ) from None


class _UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 on a unix socket."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def container(ref: str, what: str = "") -> str:
    """The path of one container, by name or id."""
    return f"/containers/{quote(ref, safe='')}{what}"


def log_text(content: bytes) -> str:
    """The text of a log: frames of an 8-byte header and a payload, or plain text of a terminal."""
    text, rest = b"", content
    while len(rest) >= 8 and rest[0] in (0, 1, 2) and rest[1:4] == b"\0\0\0":
        size = int.from_bytes(rest[4:8], "big")
        text, rest = text + rest[8 : 8 + size], rest[8 + size :]
    return (text or rest).decode("utf-8", "replace")
