from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpod.cache import FrameScanner
from llmpod.cache.sse import Event, iter_frames, parse_events
from llmpod.errors import UpstreamInvalid
from tests.cache.helpers import CHAT

ends = st.sampled_from(["\n", "\r\n", "\r"])
lines = st.sampled_from(
    [
        "data: {}",
        "data: [DONE]",
        'data: {"a":"[DONE]"}',
        ": comment",
        "event: x",
        "data:y",
        "data",
        "id: 1",
        "",
        "é",
    ]
)
bodies = st.lists(st.tuples(lines, ends), max_size=25).map(
    lambda parts: "".join(map("".join, parts)).encode()
)
streams = st.lists(lines.filter(bool), max_size=12).map(
    lambda parts: "".join(f"{part}\n\n" for part in parts).encode()
)


def fed(body: bytes, cuts: list[int], path: str = CHAT) -> FrameScanner:
    scanner = FrameScanner(path)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    for start, end in pairwise(edges):
        scanner.feed(memoryview(body)[start:end])
    return scanner


@given(bodies)
def test_frames_joined_are_the_body(body: bytes) -> None:
    assert b"".join(iter_frames(body)) == body


@given(bodies | streams, st.lists(st.integers(0, 200), max_size=12))
def test_how_the_body_was_cut_does_not_matter(body: bytes, cuts: list[int]) -> None:
    whole, pieces = fed(body, []), fed(body, cuts)
    assert (whole.frames, whole.done, whole.boundary, whole.received) == (
        pieces.frames, pieces.done, pieces.boundary, len(body),
    )  # fmt: skip


@given(bodies | streams)
def test_the_scanner_agrees_with_the_splitter_and_the_parser(body: bytes) -> None:
    scanner = fed(body, [])
    found = list(iter_frames(body))
    complete = found[: scanner.frames]
    assert sum(map(len, complete)) == scanner.boundary
    assert len(found) - scanner.frames in (0, 1)
    assert scanner.done is any(
        event.data.strip() == "[DONE]" for event in parse_events(body[: scanner.boundary])
    )


@given(bodies, ends)
def test_events_are_the_same_for_every_line_end(body: bytes, end: str) -> None:
    plain = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert parse_events(plain.replace(b"\n", end.encode())) == parse_events(plain)


def test_done_inside_an_answer_is_text() -> None:
    scanner = FrameScanner()
    assert not scanner.feed(b'data: {"choices":[{"delta":{"content":"data: [DONE]"}}]}\n\n')
    assert not scanner.feed(b": [DONE]\n\n")
    assert not scanner.feed(b"event: [DONE]\n\n")
    assert not scanner.feed(b"data: [DONE]\n")
    assert scanner.feed(b"\ndata: late\n\n")
    assert scanner.end == scanner.boundary - len(b"data: late\n\n")


@pytest.mark.parametrize(
    ("path", "last"),
    [
        ("/v1/responses", b'event: response.completed\ndata: {"type":"response.completed"}\n\n'),
        ("/v1/responses", b'data: {"response":{},"type":"response.completed"}\n\n'),
        ("/v1/responses", b'data: {"type":"response.incomplete"}\r\n\r\n'),
        ("/v1/messages", b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
        (CHAT, b"data:[DONE]\n\n"),
        (CHAT, b"data: [DONE]\r\r"),
    ],
)
@pytest.mark.parametrize("cut", range(0, 20, 3))
def test_each_api_has_its_last_event(path: str, last: bytes, cut: int) -> None:
    before = b'data: {"type":"response.created","text":"response.completed message_stop"}\n\n'
    scanner = fed(before + last, [len(before) + cut], path)
    assert scanner.done
    assert scanner.end == len(before + last)
    assert not fed(before + last[:-2], [], path).done
    byte_by_byte = fed(before + last, list(range(len(before + last))), path)
    assert byte_by_byte.end == len(before + last)


def test_events_are_read_as_the_standard_says() -> None:
    body = b": hi\n\nevent: a\ndata: 1\ndata:2\nid: 9\n\ndata\n\n\n\ndata:  x\r\n\r\ndata: cut"
    assert parse_events(body) == [Event("a", "1\n2"), Event("", ""), Event("", " x")]


def test_a_stream_that_is_no_text_is_an_error() -> None:
    with pytest.raises(UpstreamInvalid, match="not UTF-8"):
        parse_events(b"data: \xff\n\n")
