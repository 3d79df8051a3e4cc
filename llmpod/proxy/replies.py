"""Not the model server's words: the answers the proxy itself gives, all in OpenAI's shape. Pure."""

import json
from collections.abc import Iterable
from http import HTTPStatus
from math import ceil
from typing import Any, Final

from llmpod.errors import LlmpodError, UpstreamInvalid
from llmpod.proxy.headers import NOSNIFF, SANDBOX, Headers, is_json
from llmpod.proxy.wish import NotCached

JSON_TYPE: Final = (b"content-type", b"application/json")
SSE_TYPE: Final = (b"content-type", b"text/event-stream; charset=utf-8")
# what buffering proxies and browsers between us and the client must know about a stream
STREAM_FIELDS: Final = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
GATEWAY_GAVE_UP: Final = 524  # Cloudflare, and so RunPod's HTTP proxy, after 100 s without a byte (F12)
ORIGINAL_CHARS: Final = 4096  # of a foreign error text that is kept inside ours
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_body(error: LlmpodError) -> bytes:
    """``{"error": {...}}`` as JSON."""
    return json.dumps(error.as_openai()).encode()


def error_headers(error: LlmpodError) -> Headers:
    """The header fields that go with an error, without framing."""
    headers = [JSON_TYPE, NOSNIFF]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(max(1, ceil(error.retry_after))).encode()))
    if isinstance(error, NotCached):
        headers.append((b"x-should-retry", b"false"))
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer, Basic realm="llmpod"'))
    return headers


def error_event(body: bytes) -> bytes:
    """The JSON of an error as one event of a stream that has already begun; line ends in it are white space."""
    return b"data: " + body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n"


def truer_status(status: int) -> int:
    """The status that clients know, where the model server's network has one of its own."""
    return 504 if status == GATEWAY_GAVE_UP else status


def whole(status: int, headers: Headers, body: bytes) -> bytes:
    """A complete HTTP/1.1 answer after which the connection closes; for refusals below the application."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%b: %b\r\n" % item for item in headers]
    lines.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body))
    return b"".join(lines) + body


def refusal(error: LlmpodError) -> bytes:
    """A complete HTTP/1.1 answer that says no."""
    return whole(error.status, [*error_headers(error), *SANDBOX], error_body(error))


def with_fields(answer: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A complete answer with more header fields, put behind its first line."""
    line, _, rest = answer.partition(b"\r\n")
    return b"%b\r\n%b%b" % (line, b"".join(b"%b: %b\r\n" % item for item in fields), rest)


def in_openai_shape(status: int, content_type: bytes, body: bytes) -> bytes:
    """A foreign error body as OpenAI's clients read it: itself if it has the shape, else wrapped with it inside.

    Clients show nothing of ``{"detail": …}`` or of a string ``error`` (docs: clients' behaviour, measured).
    """
    parsed = _parsed(body) if is_json(content_type) or body[:1] in (b"{", b"[") else None
    if isinstance(parsed, dict) and isinstance(parsed.get("error"), dict) and "message" in parsed["error"]:
        return body
    original = parsed if parsed is not None else body.decode("utf-8", "replace")[:ORIGINAL_CHARS]
    error: dict[str, Any] = {
        "message": _message(original) or _plainly(status),
        "type": _TYPES.get(status, "invalid_request_error" if status < 500 else "upstream_error"),
        "param": None,
        "code": f"upstream_{status}",
        "original": original,
    }
    return json.dumps({"error": error}).encode()


def _plainly(status: int) -> str:
    if status == GATEWAY_GAVE_UP:
        return (
            "The network before the model server gave up (524) since no byte of the answer came in time."
            " Ask for a stream, or set UPSTREAM_STREAM=always."
        )
    return f"The model server answered {status}."


def redirected(status: int) -> UpstreamInvalid:
    """A redirect is never followed (T14): whoever sends one is not the model server that was configured."""
    return UpstreamInvalid(
        f"The model server answered with a redirect ({status}).", hint="Check the endpoint's URL."
    )


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _message(original: Any) -> str:
    """The most telling text in a foreign error."""
    if isinstance(original, str):
        text = original.strip()
        return "" if text.startswith("<") else text[:500]
    if isinstance(original, dict):
        for name in ("error", "detail", "message", "msg"):
            if value := original.get(name):
                return value if isinstance(value, str) else json.dumps(value)[:500]
    return ""
