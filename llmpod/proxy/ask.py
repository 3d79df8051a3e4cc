"""Not ASGI: one client's request, read whole, with what the rest of the proxy needs to know of it."""

from dataclasses import dataclass, field
from hashlib import sha256

from llmpod.cache import KeyPolicy, RequestKey
from llmpod.config import CallerKey, ProxySettings
from llmpod.proxy.headers import CREDENTIALS, Headers, get
from llmpod.proxy.peer import source_of
from llmpod.proxy.wish import Wish


@dataclass(frozen=True, slots=True)
class Leave:
    """What the gate gave a request.

    Args:
        caller: id of the key it came with; empty where none is needed.
        models: the only ones it may ask for; empty: any.
        fields: of the answer, for a page of another origin.
        key: the key itself, with limits of its own.
        anonymous: callers have keys here, and this one showed none: details are not for it.
    """

    caller: str = ""
    models: tuple[str, ...] = ()
    fields: tuple[tuple[bytes, bytes], ...] = ()
    key: CallerKey | None = None
    anonymous: bool = False


OPEN = Leave()


@dataclass(slots=True)
class Facts:
    """What the header of a request decides by itself: found out when it is needed, and once for all requests on a
    connection that repeat that header to the byte.

    Args:
        checked: it has passed ``guard.check``.
        plain: the desk can answer such a request.
        content_type: as text.
        partition: of the cache, by the credential.
        wish: what it says about caching.
    """

    checked: bool = False
    plain: bool | None = None
    content_type: str | None = None
    partition: bytes | None = None
    wish: Wish | None = None


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
    leave: Leave = OPEN
    facts: Facts = field(default_factory=Facts, repr=False)

    @property
    def content_type(self) -> str:
        facts = self.facts
        if facts.content_type is None:
            facts.content_type = get(self.headers, b"content-type").decode("latin-1")
        return facts.content_type

    @property
    def turn(self) -> str:
        """Whose turns and limits it uses: those of its key, or of where it comes from."""
        return self.leave.caller or source_of(self.client)

    def owner(self, *, passes_credentials: bool) -> bytes:
        """Whose part of the cache this is: that of the key it came with, or of what the endpoint is shown."""
        if self.leave.caller:
            return b"key:" + self.leave.caller.encode()
        if not passes_credentials:
            return b""
        facts = self.facts
        if facts.partition is None:
            facts.partition = partition(self.headers)
        return facts.partition

    @property
    def has_body(self) -> bool:
        """A body came, be it an empty one in chunks."""
        return bool(self.body) or any(name == b"transfer-encoding" for name, _ in self.headers)


def partition(headers: Headers) -> bytes:
    """Whose answers these are, to an endpoint that knows its callers: a digest of the credential, or empty."""
    credentials = [name + b"\0" + value for name, value in headers if name in CREDENTIALS]
    return sha256(b"\0".join(sorted(credentials))).digest() if credentials else b""


def key_policy(settings: ProxySettings) -> KeyPolicy:
    """What counts in keys, and what may be stored, as it is configured."""
    return KeyPolicy(
        masks=frozenset(settings.cache_masks), storing=settings.cache_policy, shared=settings.cache_shared
    )
