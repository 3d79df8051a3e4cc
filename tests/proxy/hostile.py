"""Answers of a hostile model server, byte by byte. Not what they do to the proxy: that is test_hostile_upstream.py."""

from collections.abc import Mapping
from typing import Final

from tests.proxy.stub import chat

BODY: Final = chat("of a hostile server")
JSON: Final = "content-type: application/json"
CHUNKED: Final = "transfer-encoding: chunked"


def head(*lines: str | bytes, status: str = "200 OK", version: str = "1.1") -> bytes:
    """A head with its empty line."""
    first = f"HTTP/{version} {status}"
    return b"\r\n".join([*(x.encode() if isinstance(x, str) else x for x in (first, *lines)), b"", b""])


def framed(*lines: str | bytes, body: bytes = BODY, status: str = "200 OK", version: str = "1.1") -> bytes:
    """A whole answer with its length."""
    return head(*lines, f"content-length: {len(body)}", status=status, version=version) + body


def chunks(*parts: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    """A chunked body."""
    sent = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
    return sent + b"0\r\n" + trailers + b"\r\n"


def as_json(*lines: str | bytes, body: bytes = b"") -> bytes:
    """The head of a JSON answer with these lines about its framing, and what follows."""
    return head(JSON, *lines) + body


LENGTH: Final = len(BODY)
REFUSED: Final[Mapping[str, bytes]] = {
    "length and chunked": as_json(f"content-length: {LENGTH}", CHUNKED, body=chunks(BODY)),
    "chunked and length": as_json(CHUNKED, f"content-length: {LENGTH}", body=chunks(BODY)),
    "two lengths": as_json("content-length: 5", f"content-length: {LENGTH}", body=BODY),
    "one length twice": as_json(*(f"content-length: {LENGTH}",) * 2, body=BODY),
    "list of lengths": as_json(f"content-length: {LENGTH}, {LENGTH}", body=BODY),
    "signed length": as_json(f"content-length: +{LENGTH}", body=BODY),
    "negative length": as_json("content-length: -1", body=BODY),
    "hexadecimal length": as_json("content-length: 0x10", body=BODY),
    "length of 77 bits": as_json("content-length: 99999999999999999999999", body=BODY),
    "space before the colon": as_json(f"content-length : {LENGTH}", body=BODY),
    "chunked twice": as_json(CHUNKED, CHUNKED, body=chunks(BODY)),
    "gzip, chunked": as_json("transfer-encoding: gzip, chunked", body=chunks(BODY)),
    "transfer gzip": as_json("transfer-encoding: gzip", body=BODY),
    "transfer identity": as_json("transfer-encoding: identity", body=BODY),
    "almost chunked": as_json("transfer-encoding: xchunked", body=BODY),
    "chunked, unreadably": as_json("transfer-encoding: \tchunked\x0b", body=BODY),
    "negative chunk": as_json(CHUNKED, body=b"-5\r\nhello\r\n0\r\n\r\n"),
    "chunk with 0x": as_json(CHUNKED, body=b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk of 68 bits": as_json(CHUNKED, body=b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    "chunk with bare LF": as_json(CHUNKED, body=b"5\nhello\n0\n\n"),
    "chunk without its end": as_json(CHUNKED, body=b"5\r\nhelloXX0\r\n\r\n"),
    "chunk size without end": as_json(CHUNKED, body=b"0" * 2**20),
    "chunk extension without end": as_json(CHUNKED, body=b"5;" + b"a" * 2**20),
    "length among the trailers": as_json(CHUNKED, body=chunks(BODY, trailers=b"content-length: 5\r\n")),
    "500 trailers": as_json(CHUNKED, body=chunks(BODY, trailers=b"x: y\r\n" * 500)),
    "a trailer of 200 KB": as_json(CHUNKED, body=chunks(BODY, trailers=b"x: " + b"y" * 200_000 + b"\r\n")),
    "folded field": framed(JSON, b"x-request-id: a\r\n b"),
    "NUL in a field": framed(JSON, b"x-request-id: a\0b"),
    "CR in a field": framed(JSON, b"x-request-id: a\rset-cookie: b"),
    "LF in a field": framed(JSON, b"x-request-id: a\nset-cookie: b"),
    "escape in a field": framed(JSON, b"x-request-id: \x1b[31m"),
    "field without colon": framed(JSON, "garbage"),
    "field without name": framed(JSON, ": x"),
    "name with a space": framed(JSON, "x request: x"),
    "300 fields": framed(JSON, *(f"x-{n}: y" for n in range(300))),
    "a field of 200 KB": framed(JSON, b"x: " + b"y" * 200_000),
    "fields of 100 KB": framed(JSON, *(f"x-{n}: {'y' * 1000}" for n in range(100))),
    "two content types": framed(JSON, "content-type: text/html"),
    "gzip": framed(JSON, "content-encoding: gzip"),
    "encodings": framed(JSON, "content-encoding: identity, br"),
    "two encodings": framed(JSON, "content-encoding: identity", "content-encoding: identity"),
    "status 0": framed(JSON, status="000 X"),
    "status 99": framed(JSON, status="099 X"),
    "status 600": framed(JSON, status="600 X"),
    "status 999": framed(JSON, status="999 X"),
    "status 1000": framed(JSON, status="1000 X"),
    "status 2": framed(JSON, status="2 X"),
    "status -200": framed(JSON, status="-200 X"),
    "no status": BODY,
    "bare LF": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "HTTP/3": framed(JSON, version="3.0"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH\r\n\r\n",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "upgrade": head("upgrade: websocket", "connection: upgrade", status="101 X") + framed(JSON),
    "20,000 hints": head("link: x", status="103 X") * 20_000 + framed(JSON),
    "60,000 continues": head(status="100 X") * 60_000 + framed(JSON),
    **{
        f"status {status}": framed(JSON, "location: http://169.254.7.7/secret", status=f"{status} X")
        for status in (300, 301, 302, 303, 307, 308)
    },
    "not modified": head(JSON, "location: http://169.254.7.7/secret", status="304 X"),
    "page": framed("content-type: text/html; charset=utf-8", body=b"<script>alert(1)</script>"),
}
"""Answers that no honest server gives: 502, and not a byte of theirs."""

FOREIGN: Final = (
    *("set-cookie: a=b; Domain=localhost", "set-cookie2: a=b", "access-control-allow-origin: *"),
    *("access-control-allow-credentials: true", "access-control-expose-headers: *", "alt-svc: h3=':1'"),
    *("strict-transport-security: max-age=1", "clear-site-data: *", "server: evil/1.0", "x-powered-by: evil"),
    *("location: http://169.254.7.7/", "refresh: 0; url=http://evil.example/", "link: <x>; rel=preload"),
    *("content-location: http://evil.example/", "x-frame-options: ALLOWALL", "service-worker-allowed: /"),
    *("connection: keep-alive, x-request-id", "keep-alive: timeout=5", "proxy-authenticate: Basic"),
    *("www-authenticate: Basic realm=evil", "proxy-connection: keep-alive", "upgrade: h2c", "trailer: x"),
    *("age: 5", "etag: x", "vary: *", "expires: 0", "cache-control: public, max-age=99999", "via: 1.1 evil"),
    *("x-cache: HIT", "x-cache-reason: evil", "report-to: {}", "nel: {}", "x-forwarded-host: evil"),
    *("cross-origin-resource-policy: cross-origin", "permissions-policy: camera=*", "sourcemap: /x"),
    *("x-accel-redirect: /etc/passwd", "x-sendfile: /etc/passwd", "speculation-rules: /x", "te: trailers"),
    *("content-security-policy: default-src *", "timing-allow-origin: *", "x-dns-prefetch-control: on"),
)
"""Fields that must not cross."""

CROSSING: Final = (
    *("x-request-id: r", "retry-after: 3", "retry-after-ms: 3000", "openai-organization: o"),
    *("openai-processing-ms: 5", "anthropic-ratelimit-requests-limit: 5", "x-ratelimit-limit-requests: 5"),
)
"""Fields that clients read."""

HARMLESS: Final[Mapping[str, bytes]] = {
    "fields": framed(JSON, *FOREIGN),
    "fields of the trailers": as_json(
        CHUNKED,
        body=chunks(BODY, trailers=b"x-request-id: late\r\ncontent-type: text/html\r\nset-cookie: a\r\n"),
    ),
    "early hints": head("link: x", "x-request-id: early", status="103 X") + framed(JSON),
    "field beyond ASCII": framed(JSON, b"x-request-id: \xff\xfe"),
    "one extension": as_json(CHUNKED, body=chunks(BODY, extension=b";a=b")),
    **{
        f"{kind}": framed(f"content-type: {kind}")
        for kind in (
            *("image/svg+xml", "application/xhtml+xml", "text/xml", "text/javascript", "text/css"),
            *("application/javascript", "multipart/x-mixed-replace", "application/x-shockwave-flash", "x"),
            *("message/rfc822", "application/pdf", "application/wasm", "*/*", "application/json,text/html"),
        )
    },
}
"""Answers that pass, but for what a browser or a client could obey."""
