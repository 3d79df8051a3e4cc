"""The bytes of a connection become the same requests however they are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpod.sim.feed import BadMessage, Feed, Request

BODIES = st.binary(max_size=300)


def plain(body: bytes) -> bytes:
    return b"POST /a%%20b?c=1&d= HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    framed = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    head = b"POST /a%20b?c=1&d= HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + framed + b"0\r\n\r\n"


@given(bodies=st.lists(BODIES, min_size=1, max_size=4), size=st.integers(1, 50), cut=st.integers(1, 40))
def test_any_framing_and_any_cut_gives_the_same_requests(bodies: list[bytes], size: int, cut: int) -> None:
    stream = b"".join(plain(body) if n % 2 else chunked(body, size) for n, body in enumerate(bodies))
    feed, seen = Feed(), []
    for start in range(0, len(stream), cut):
        feed.buffer += stream[start : start + cut]
        while (request := feed.take()) is not None:
            seen.append(request)
    assert [request.body for request in seen] == bodies
    assert {(request.method, request.path) for request in seen} == {("POST", "/a b")}
    assert all(request.query == {"c": "1", "d": ""} for request in seen)
    assert not feed.buffer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / SPDY/3\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad header : x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET /" + b"a" * 70_000, 431),
    ],
)
def test_what_is_no_request_is_refused(data: bytes, status: int) -> None:
    feed = Feed()
    feed.buffer += data
    with pytest.raises(BadMessage) as refused:
        feed.take()
    assert refused.value.status == status


def test_a_client_that_waits_for_continue_is_told_once() -> None:
    feed = Feed()
    feed.buffer += b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    assert feed.take() is None
    assert (feed.wants_continue(), feed.wants_continue()) == (True, False)
    feed.buffer += b"ab"
    headers = {"content-length": "2", "expect": "100-continue"}
    assert feed.take() == Request("POST", "/", headers, b"ab")
    feed.buffer += b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    assert feed.take() is None
    assert feed.wants_continue(), "the next one waits as well"
