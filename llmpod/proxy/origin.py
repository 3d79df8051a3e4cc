"""Not a connection: where a model server is and what one request to it says. Pure."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from urllib.parse import urlsplit

from llmpod.places import is_loopback
from llmpod.proxy.headers import Headers


@dataclass(frozen=True)
class Origin:
    """A server's address, pinned: requests and credentials go there and nowhere else.

    ``prefix`` is the path that stands before ``/v1`` (empty for most servers).
    """

    tls: bool
    host: str
    port: int
    prefix: bytes = b""

    @classmethod
    def parse(cls, base_url: str) -> "Origin":
        """From a base URL without ``/v1``. Raises ValueError when it is not an http(s) URL."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http(s) URL: {base_url!r}")
        tls = parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        return cls(tls, parts.hostname, port, parts.path.rstrip("/").encode("ascii"))

    @cached_property
    def host_header(self) -> bytes:
        name = f"[{self.host}]" if ":" in self.host else self.host
        default = self.port == (443 if self.tls else 80)
        return (name if default else f"{name}:{self.port}").encode("ascii")

    @cached_property
    def place(self) -> tuple[bool, str, int]:
        """What connections are pooled by."""
        return self.tls, self.host, self.port

    @cached_property
    def in_the_clear(self) -> bool:
        """Whether prompts and keys go over a network that others may read (T15)."""
        return not self.tls and not is_loopback(self.host)

    def __str__(self) -> str:
        return self.host_header.decode()


class Request(NamedTuple):
    """One request, complete: its body is in memory, so that it can be sent again on another connection.

    ``target`` is path and query as the client wrote them; ``headers`` are filtered and hold no framing.
    """

    origin: Origin
    method: bytes
    target: bytes
    headers: Headers
    body: bytes = b""

    def __repr__(self) -> str:
        """Without what may be secret."""
        return f"<Request {self.method!r} {self.origin} {len(self.body)} bytes>"

    def head(self) -> bytes:
        """The bytes up to and with the empty line."""
        lines = [
            b"%b %b%b HTTP/1.1\r\nhost: %b\r\nuser-agent: llmpod\r\naccept-encoding: identity\r\n"
            % (self.method, self.origin.prefix, self.target, self.origin.host_header)
        ]
        for item in self.headers:
            lines.append(b"%b: %b\r\n" % item)  # noqa: PERF401 - quicker than a list of its own for one or two
        if self.body or self.method in (b"POST", b"PUT", b"PATCH"):
            lines.append(b"content-length: %d\r\n" % len(self.body))
        lines.append(b"\r\n")
        return b"".join(lines)
