"""Not ASGI: one client's request, read whole, with what the rest of the proxy needs to know of it."""

from dataclasses import dataclass, field
from hashlib import sha256

from llmpod.cache import KeyPolicy, RequestKey
from llmpod.config import ProxySettings
from llmpod.proxy.headers import CREDENTIALS, Headers, get


@dataclass(slots=True)
class Ask:
    """A request. ``path`` has no query; ``target`` is path and query as received.

    ``key`` is there once somebody has made it. ``keep``: the client may send another request on the connection;
    ``chunks``: it understands an answer in chunks (HTTP/1.1).
    """

    method: str
    path: str
    target: bytes
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)
    client: str
    keep: bool = True
    chunks: bool = True
    key: RequestKey | None = None

    @property
    def content_type(self) -> str:
        return get(self.headers, b"content-type").decode("latin-1")

    @property
    def has_body(self) -> bool:
        """A body came, be it an empty one in chunks."""
        return bool(self.body) or any(name == b"transfer-encoding" for name, _ in self.headers)


def partition(headers: Headers) -> bytes:
    """Whose answers these are: a digest of the credential, empty without one."""
    credentials = [name + b"\0" + value for name, value in headers if name in CREDENTIALS]
    return sha256(b"\0".join(sorted(credentials))).digest() if credentials else b""


def key_policy(settings: ProxySettings) -> KeyPolicy:
    """What counts in keys, and what may be stored, as it is configured."""
    return KeyPolicy(masks=frozenset(settings.cache_masks), storing=settings.cache_policy)
