"""Not a cache and not a client: a flight's bytes to one client, in the form that this client asked for."""

import asyncio
from typing import Final

from llmpod.cache import Listener
from llmpod.cache.assemble import assemble
from llmpod.cache.paths import converts
from llmpod.cache.unroll import strip_usage, unroll
from llmpod.errors import UpstreamInvalid
from llmpod.proxy.answer import Answer
from llmpod.proxy.fill import Fill, Form
from llmpod.proxy.headers import Headers, get, is_json, media_type
from llmpod.proxy.replies import JSON_TYPE, in_openai_shape

SSE_TYPE: Final = (b"content-type", b"text/event-stream; charset=utf-8")
_MAX_ERROR_BYTES: Final = 2**20
_BIG: Final = 65536  # bodies above this are converted in a thread
# what buffering proxies and browsers between us and the client must know about a stream
_STREAM_FIELDS: Final = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


async def deliver(fill: Fill, listener: Listener, answer: Answer, *, path: str, want: Form) -> None:
    """Send what a call brings until its end.

    Raises:
        LlmpodError: what the flight failed with, after the bytes that came before it were sent.
    """
    head = await fill.flight.head()
    headers = list(head.headers)
    if head.status >= 400:
        await _error(listener, answer, head.status, headers)
        return
    is_stream = media_type(get(headers, b"content-type")) == b"text/event-stream"
    if head.status == 200 and converts(path) and _converted(want, fill.asked, is_stream=is_stream):
        body = await _collect(listener)
        kind, converted = await _convert(body, path, want, is_stream=is_stream)
        kept = [item for item in headers if item[0] not in (b"content-length", b"content-type")]
        await answer.whole(200, [kind, *kept], converted)
        return
    if is_stream:
        answer.events = True
        headers += _STREAM_FIELDS
    await answer.start(head.status, headers)
    async for chunk in listener:
        await answer.write(chunk)
    await answer.finish()


def _converted(want: Form, asked: Form, *, is_stream: bool) -> bool:
    """Whether the bytes that come must be turned into another form for this client."""
    if is_stream:
        return not want.stream or (asked.usage and not want.usage)
    return want.stream and not asked.stream


async def _collect(listener: Listener) -> bytes:
    chunks = [chunk async for chunk in listener]
    return b"".join(chunks)


async def _convert(
    body: bytes, path: str, want: Form, *, is_stream: bool
) -> tuple[tuple[bytes, bytes], bytes]:
    def work() -> tuple[tuple[bytes, bytes], bytes]:
        if not is_stream:
            return SSE_TYPE, unroll(body, path=path, include_usage=want.usage)
        if want.stream:
            return SSE_TYPE, strip_usage(body)
        return JSON_TYPE, assemble(body, path=path)

    return await asyncio.to_thread(work) if len(body) > _BIG else work()


async def _error(listener: Listener, answer: Answer, status: int, headers: Headers) -> None:
    """An error of the model server: its status and fields, its body in OpenAI's shape."""
    body = await _collect(listener)
    if len(body) > _MAX_ERROR_BYTES:
        raise UpstreamInvalid(f"The model server answered {status} with an error of {len(body)} bytes.")
    content_type = get(headers, b"content-type")
    shaped = in_openai_shape(status, content_type, body)
    kind = (b"content-type", content_type) if shaped is body and is_json(content_type) else JSON_TYPE
    kept = [item for item in headers if item[0] not in (b"content-length", b"content-type")]
    await answer.whole(status, [kind, *kept], shaped)
