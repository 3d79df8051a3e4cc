"""Not ASGI: one client's request, read whole and checked, with what the rest of the proxy needs to know of it."""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from llmpod.errors import LlmpodError, TooLarge
from llmpod.proxy import guard
from llmpod.proxy.headers import CREDENTIALS, Headers, get

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Gone(LlmpodError):
    """The client left before its request was complete; nobody reads this."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. ``path`` has no query; ``target`` is path and query as received."""

    method: str
    path: str
    target: bytes
    query: bytes
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)
    client: str

    @property
    def content_type(self) -> str:
        return get(self.headers, b"content-type").decode("latin-1")


def partition(headers: Headers) -> bytes:
    """Whose answers these are: a digest of the credential, empty without one."""
    credentials = [name + b"\0" + value for name, value in headers if name in CREDENTIALS]
    return sha256(b"\0".join(sorted(credentials))).digest() if credentials else b""


async def read(scope: MutableMapping[str, Any], receive: Receive, *, max_body_bytes: int) -> Ask:
    """The whole request.

    Raises:
        BadRequest: the guard refuses it, or TooLarge as soon as the limit is passed.
        Gone: the client hung up.
    """
    raw_path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    headers: Headers = scope["headers"]
    announced = any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in headers
    )
    guard.check(scope["method"], raw_path, headers, has_body=announced)
    client = scope.get("client")
    return Ask(
        method=scope["method"],
        path=raw_path.decode("latin-1"),
        target=raw_path + b"?" + query if query else raw_path,
        query=query,
        headers=headers,
        body=await _body(receive, max_body_bytes) if announced else b"",
        client=client[0] if client else "",
    )


async def _body(receive: Receive, most: int) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        return body
    parts, size = [], 0
    while True:
        if message["type"] != "http.request":
            raise Gone("The client left.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise TooLarge(f"The body is larger than {most} bytes.")
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()
