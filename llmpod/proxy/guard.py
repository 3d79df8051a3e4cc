"""Not authentication yet and not a rate limiter: what a request must look like to be served at all. Pure.

Every refusal is one of our errors, so it leaves in OpenAI's shape. The hot path in protocol.py asks the same
functions; what is added here holds for both.
"""

from collections.abc import Iterable
from typing import ClassVar, Final
from urllib.parse import unquote_to_bytes

from llmpod.errors import BadRequest
from llmpod.memo import remembered
from llmpod.proxy.headers import is_json, media_type

MAX_FIELDS: Final = 100
_FILES: Final = ("/v1/audio/", "/v1/files", "/v1/images/", "/v1/uploads", "/v1/batches")
_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})
_REFUSED_METHODS: Final = frozenset({"CONNECT", "TRACE"})


class UnsupportedMedia(BadRequest):
    """The body is of a type that is not served; a web page could send it across sites unasked (T1)."""

    status: ClassVar[int] = 415
    code: ClassVar[str] = "unsupported_media_type"


class HeaderTooLarge(BadRequest):
    """Too many or too long header fields."""

    status: ClassVar[int] = 431
    code: ClassVar[str] = "header_too_large"


class MethodNotAllowed(BadRequest):
    """A method that no model server needs and that leaks or tunnels."""

    status: ClassVar[int] = 405
    code: ClassVar[str] = "method_not_allowed"


@remembered(256)
def serves_type(content_type: bytes) -> bool:
    """Whether a request body may be of this type: JSON, or multipart for audio and files."""
    return is_json(content_type) or media_type(content_type) == b"multipart/form-data"


@remembered(1024)
def check_path(raw_path: bytes) -> None:
    """Refuse paths that could mean another path to the model server than they do to us.

    Raises:
        BadRequest: dot segments, plain or encoded, backslashes, NUL, or a second layer of encoding.
    """
    path = unquote_to_bytes(raw_path)
    twice = unquote_to_bytes(path)
    if any(segment in (b".", b"..") for segment in twice.split(b"/")) or b"\\" in twice or b"\0" in twice:
        raise BadRequest("The path may not contain dot segments, backslashes or NUL.")


def check(method: str, raw_path: bytes, headers: Iterable[tuple[bytes, bytes]], *, has_body: bool) -> None:
    """Refuse what must not reach the model server.

    Args:
        method: upper case.
        raw_path: as received, without query.
        headers: lower-case names.
        has_body: whether a body was announced or came.

    Raises:
        BadRequest: or one of its subclasses above.
    """
    if method in _REFUSED_METHODS:
        raise MethodNotAllowed(f"{method} is not served here.")
    check_path(raw_path)
    kinds, encodings = set(), set()
    for name, value in headers:
        if name == b"content-type":
            kinds.add(value)
        elif name == b"content-encoding":
            encodings.add(value.strip().lower())
    if len(kinds) > 1:
        raise BadRequest("The request has two different Content-Type fields.")
    if encodings - {b"identity"}:
        raise UnsupportedMedia(
            "Compressed request bodies are not served.", hint="Send the body uncompressed."
        )
    kind = next(iter(kinds), b"")
    takes = is_json(kind) or (serves_type(kind) and raw_path.decode("latin-1").startswith(_FILES))
    if has_body and method in _BODY_METHODS and not takes:
        raise UnsupportedMedia(
            "The Content-Type must be application/json (or multipart/form-data for files).",
            hint="Send the header `Content-Type: application/json`.",
        )
