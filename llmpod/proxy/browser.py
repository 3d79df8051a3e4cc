"""Not authentication: whether a web page is behind a request, and whether that page may talk to this address. Pure.

localhost is no wall to a browser: any page may send requests here (T1), and one whose name was rebound to this
address may read the answers (T2). What a browser cannot forge tells them apart: Host, Origin and Sec-Fetch-Site.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from llmpod.errors import BadRequest, Forbidden
from llmpod.proxy.headers import Headers

LOCAL_NAMES: Final = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})
EDITORS: Final = b"vscode-webview://"  # editors' panels; no web page can have an origin of this scheme
_PREFLIGHT_SECONDS: Final = b"600"
_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_EXPOSED: Final = b"x-cache, x-cache-reason, x-request-id, retry-after"


class Misdirected(BadRequest):
    """The request is for another host than this one (RFC 9110 15.5.20)."""

    status: ClassVar[int] = 421
    code: ClassVar[str] = "wrong_host"


@dataclass(frozen=True, slots=True)
class Pages:
    """Which names this address has, and which pages may use it.

    Args:
        hosts: more names than the local ones, lower case, without a port.
        origins: of pages, as browsers write them: scheme, host and, where it is not the default, port.
    """

    hosts: frozenset[bytes] = frozenset()
    origins: frozenset[bytes] = frozenset()

    def check(self, headers: Iterable[tuple[bytes, bytes]], *, local: str, tls: bool) -> Headers:
        """Refuse what a page without leave has sent.

        Args:
            headers: lower-case names.
            local: the address of ours that the connection came to; a literal one cannot be rebound.
            tls: whether it came over TLS.

        Returns:
            The CORS fields of the answer; none for whoever is no page of another origin.

        Raises:
            Misdirected: not a name of ours.
            Forbidden: a page of another origin.
        """
        host, origin, site = b"", None, b""
        for name, value in headers:
            if name == b"host":
                host = value.lower()
            elif name == b"origin":
                origin = value if origin is None else b"two"
            elif name == b"sec-fetch-site":
                site = value.lower()
        self._check_host(host, local)
        if origin is None:
            if site not in (b"", b"none", b"same-origin"):
                raise Forbidden("A web page of another site may not use this address.")
            return []
        if origin == (b"https://" if tls else b"http://") + host:
            return []
        if origin in self.origins or (origin.startswith(EDITORS) and len(origin) > len(EDITORS)):
            return [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", _EXPOSED),
                (b"vary", b"Origin"),
            ]
        raise Forbidden(
            "A web page of another origin may not use this address.",
            hint="If it should, name its origin in `cors_origins`.",
        )

    def _check_host(self, host: bytes, local: str) -> None:
        name = _without_port(host)
        if name in LOCAL_NAMES or name in self.hosts or not name:  # HTTP/1.0 may come without
            return
        if name.strip(b"[]") == local.encode():
            return
        raise Misdirected(
            "This address does not go by the name in the Host field.",
            hint="Use http://localhost, or name the host in `allowed_hosts`.",
        )


def _without_port(host: bytes) -> bytes:
    name, colon, _ = host.rpartition(b":")
    return name if colon and not host.endswith(b"]") else host


def preflight(headers: Iterable[tuple[bytes, bytes]], *, allowed: bool) -> Headers:
    """The fields of the answer to an OPTIONS request, which no model server sees.

    Args:
        headers: of the request.
        allowed: a page that may use this address asks; else methods are told, and nothing is allowed.
    """
    fields: Headers = [(b"allow", _METHODS)]
    if not allowed:
        return fields
    wanted = next((value for name, value in headers if name == b"access-control-request-headers"), b"")
    fields.append((b"access-control-allow-methods", _METHODS))
    fields.append((b"access-control-max-age", _PREFLIGHT_SECONDS))
    if wanted:
        fields.append((b"access-control-allow-headers", wanted))
    if any(name == b"access-control-request-private-network" for name, _ in headers):
        fields.append((b"access-control-allow-private-network", b"true"))
    return fields
