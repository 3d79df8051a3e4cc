"""Not a parser: what a request head must be besides parseable. Pure.

llhttp reads strictly; what it still lets through and two servers might read differently is refused here, by name.
Real clients send none of it, so there is nothing to be lenient about (RFC 9112 sections 2.2, 3, 6 and 11.2).
"""

import re
from functools import lru_cache
from typing import ClassVar, Final

import httptools

from llmpod.errors import BadRequest, LlmpodError
from llmpod.memo import LONGEST
from llmpod.proxy.guard import MAX_FIELDS, HeaderTooLarge, MethodNotAllowed, check_path
from llmpod.proxy.headers import Headers

MAX_LINE: Final = 8 * 2**10
METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
_PLAIN: Final = rb"[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2}"
_TARGET: Final = re.compile(rb"/(?:%b)*(?:\?(?:%b|[?\[\]{}|])*)?" % (_PLAIN, _PLAIN))
# RFC 9110 7.2: a host with an optional port; names in LDH, IPv4 and bracketed IPv6
_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9](?:[A-Za-z0-9.\-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
)


class LineTooLong(BadRequest):
    """The request's target is too long."""

    status: ClassVar[int] = 414
    code: ClassVar[str] = "uri_too_long"


class BadExpectation(BadRequest):
    """Something other than ``100-continue`` is expected of us."""

    status: ClassVar[int] = 417
    code: ClassVar[str] = "expectation_failed"


class RequestTimeout(BadRequest):
    """The request did not arrive in time; it may be sent again."""

    status: ClassVar[int] = 408
    code: ClassVar[str] = "request_timeout"


def check_line(method: bytes, url: bytes, version: str, *, seen: bytes) -> None:
    """Refuse a request line with more than single spaces in it, or another protocol's.

    Args:
        method: what the parser read.
        url: as received.
        version: the same.
        seen: the bytes it read that from.

    Raises:
        BadRequest: llhttp skips spaces, and takes RTSP for HTTP.
    """
    if b"%b %b HTTP/%b\r\n" % (method, url, version.encode()) not in seen:
        raise BadRequest("The request line is not `METHOD TARGET HTTP/1.1`.")


def check_head(method: bytes, version: str, url: bytes, headers: Headers) -> bytes:
    """Refuse a head that is ambiguous or that no client of ours sends.

    Args:
        method: as received.
        version: ``1.1`` or ``1.0``; others are refused.
        url: the target as received.
        headers: lower-case names.

    Returns:
        The target as path and query.

    Raises:
        BadRequest: or MethodNotAllowed, LineTooLong, BadExpectation.
    """
    if version not in ("1.1", "1.0"):
        raise BadRequest("Only HTTP/1.1 and HTTP/1.0 are served.")
    if method not in METHODS:
        raise MethodNotAllowed(f"{method.decode('ascii', 'replace')} is not served here.")
    hosts = []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            _check_coding(value, version)
        elif name == b"expect" and value.lower() != b"100-continue":
            raise BadExpectation("Only `Expect: 100-continue` is known.")
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise BadRequest("A request has exactly one Host field.")
    if hosts:
        check_host(hosts[0])
    form = origin_form if len(url) <= LONGEST else origin_form.__wrapped__
    return form(method, url, hosts[0] if hosts else b"")


def _check_coding(value: bytes, version: str) -> None:
    if version == "1.0":
        raise BadRequest("HTTP/1.0 knows no Transfer-Encoding.")
    if value.lower() != b"chunked":
        raise BadRequest("The only Transfer-Encoding that is served is `chunked`.")


@lru_cache(maxsize=256)
def check_host(value: bytes) -> None:
    """Refuse a Host field that is no host (RFC 9110 7.2). Raises BadRequest."""
    if _HOST.fullmatch(value) is None:
        raise BadRequest("The Host field is not a host with an optional port.")


@lru_cache(maxsize=1024)
def origin_form(method: bytes, url: bytes, host: bytes) -> bytes:
    """Path and query of a target, which may be absolute when it names the same host.

    Raises:
        BadRequest: not a target of ours; LineTooLong.
    """
    if len(url) > MAX_LINE:
        raise LineTooLong(f"The request's target is longer than {MAX_LINE} bytes.")
    if url == b"*" and method == b"OPTIONS":
        return b"/*"
    if not url.startswith(b"/"):
        scheme, found, rest = url.partition(b"://")
        authority, slash, path = rest.partition(b"/")
        if not found or scheme.lower() not in (b"http", b"https") or authority.lower() != host.lower():
            raise BadRequest("The request's target is not a path, nor a URL of the host in its Host field.")
        url = slash + path or b"/"
    if _TARGET.fullmatch(url) is None:
        raise BadRequest("The request's target holds characters that must be percent-encoded.")
    check_path(url.partition(b"?")[0])
    return url


def without_upgrade(method: bytes, url: bytes, headers: Headers) -> bytes:
    """A header again, without the offer of another protocol, for a parser that goes on to the body.

    Java's client offers h2c with every first request; llhttp would take the body for that protocol's bytes.
    """
    offers = (b"upgrade", b"connection", b"http2-settings")
    lines = [b"%b %b HTTP/1.1\r\n" % (method, url)]
    lines += [b"%b: %b\r\n" % item for item in headers if item[0] not in offers]
    return b"".join([*lines, b"\r\n"])


def too_large(url: bytes, headers: Headers) -> LlmpodError:
    """What to call a header that is too large: one whose target alone is, or one with too much behind it."""
    if not headers and len(url) > MAX_LINE:
        return LineTooLong(f"The request's target is longer than {MAX_LINE} bytes.")
    return HeaderTooLarge(f"The header has more than {MAX_FIELDS} fields, or they are too long.")


def reason(error: httptools.HttpParserError) -> tuple[LlmpodError, BaseException | None]:
    """Why the parser stopped: the client's fault, or a bug in one of our callbacks, which comes along."""
    bug = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
    if isinstance(bug, BadRequest):
        return bug, None
    if bug is None or isinstance(bug, httptools.HttpParserError):
        return BadRequest(f"This is not a valid HTTP/1.1 request: {bug or error}."), None
    return LlmpodError("Something in the proxy went wrong.", hint="Its log says more."), bug
