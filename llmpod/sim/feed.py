"""Not a socket: turns the bytes of one connection into whole HTTP/1.1 requests (RFC 9112)."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

_HEAD_LIMIT = 64 * 1024
_BODY_LIMIT = 128 * 1024 * 1024
_LENGTH = re.compile(r"\d{1,12}")
_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}")


class BadMessage(Exception):
    """What arrived is not an HTTP request; `status` is the answer to it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Request:
    """One request. Header names are lower case; of a repeated header the values are joined by a comma."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def raw_path(self) -> str:
        """The path as sent, still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def path(self) -> str:
        return unquote(self.raw_path)

    @property
    def query(self) -> dict[str, str]:
        """Query parameters; of a repeated one the last counts."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def closes(self) -> bool:
        """Whether the client wants the connection closed after the answer."""
        return "close" in self.headers.get("connection", "").lower()


class Feed:
    """The unread bytes of one connection."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self._head: Request | None = None
        self._chunks = bytearray()
        self._continued = False

    def take(self) -> Request | None:
        """The next whole request, or None until more bytes arrive. Raises BadMessage."""
        if self._head is None and not self._take_head():
            return None
        assert self._head is not None
        body = self._body(self._head)
        if body is None:
            return None
        whole = Request(self._head.method, self._head.target, self._head.headers, body)
        self._head, self._continued = None, False
        return whole

    def wants_continue(self) -> bool:
        """Whether the client waits for "100 Continue" before it sends the body. True once for a request."""
        if self._head is None or self._continued:
            return False
        self._continued = self._head.headers.get("expect", "").lower() == "100-continue"
        return self._continued

    def _take_head(self) -> bool:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > _HEAD_LIMIT:
                raise BadMessage(431, "the head is too long")
            return False
        text = self.buffer[:end].decode("latin-1")
        del self.buffer[: end + 4]
        first, *lines = text.split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise BadMessage(400, "not a request line")
        self._head = Request(words[0], words[1], _headers(lines))
        return True

    def _body(self, request: Request) -> bytes | None:
        if "chunked" in request.headers.get("transfer-encoding", "").lower():
            return self._chunked()
        announced = request.headers.get("content-length", "0")
        if not _LENGTH.fullmatch(announced):
            raise BadMessage(400, "not a length")
        length = int(announced)
        if length > _BODY_LIMIT:
            raise BadMessage(413, "the body is too long")
        if len(self.buffer) < length:
            return None
        body = bytes(self.buffer[:length])
        del self.buffer[:length]
        return body

    def _chunked(self) -> bytes | None:
        while (end := self.buffer.find(b"\r\n")) >= 0:
            found = _SIZE.match(self.buffer)
            if not found:
                raise BadMessage(400, "not a chunk size")
            size = int(found.group(), 16)
            if size == 0:
                return self._last_chunk()
            if len(self.buffer) < end + 2 + size + 2:
                return None
            self._chunks += self.buffer[end + 2 : end + 2 + size]
            del self.buffer[: end + 2 + size + 2]
            if len(self._chunks) > _BODY_LIMIT:
                raise BadMessage(413, "the body is too long")
        return None

    def _last_chunk(self) -> bytes | None:
        """Trailers, if any, are read and dropped."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        del self.buffer[: end + 4]
        body, self._chunks = bytes(self._chunks), bytearray()
        return body


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadMessage(400, "not a header")
        key, value = name.lower(), value.strip()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers
