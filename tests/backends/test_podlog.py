"""A pod's log over a wire that breaks anywhere: every line once, in order, in time."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpod.backends.runpod_api import RunpodApi
from llmpod.backends.runpod_logs import Line, PodLog, tail
from llmpod.errors import BadCredentials, BadSpec, NotFound, ProviderUnavailable
from llmpod.secret import Secret
from tests.support.net import HOST, free_port


def frame(number: int, text: str = "", *, unique: bool = True, source: str = "container") -> bytes:
    at = f"2026-06-01T12:{number // 60:02d}:{number % 60:02d}Z"
    cursor = f"{at}/{number:012d}" if unique else at
    data = json.dumps({"ts": at, "source": source, "line": text or f"line {number}"}, ensure_ascii=False)
    return f"id: {cursor}\ndata: {data}\n\n".encode()


@dataclass
class Stream:
    """What the service has to say, and how its connections end."""

    frames: list[bytes]
    # bytes until each connection is cut; None or none left: never
    cuts: list[int | None] = field(default_factory=list)
    chunk: int = 7
    inclusive: bool = False
    cursors: bool = True
    comments: bool = False
    head_seconds: float = 0.0
    status: int = 200
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def after(self, cursor: str | None) -> bytes:
        ids = [part.split(b"\n", 1)[0].removeprefix(b"id: ").decode() for part in self.frames]
        begin = 0
        if cursor:
            begin = max((n for n, known in enumerate(ids) if known.startswith(cursor)), default=-1) + 1
            begin -= self.inclusive and begin > 0
        return b"".join(self.frames[begin:])


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        stream = self.server.stream
        cursor = self.headers.get("Last-Event-ID")
        stream.asked.append((self.path, cursor))
        time.sleep(stream.head_seconds)
        status = 422 if cursor and not stream.cursors else stream.status
        self.send_response(status)
        if status != 200:
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if "since=" in self.path:
            cursor = self.path.partition("since=")[2].partition("&")[0].replace("%3A", ":")
        self._say(
            stream.after(cursor),
            stream.cuts.pop(0) if stream.cuts else None,
        )

    def _say(self, body: bytes, cut: int | None) -> None:
        stream = self.server.stream
        self.close_connection = True
        body = body if cut is None else body[:cut]
        for start in range(0, len(body), stream.chunk):
            piece = body[start : start + stream.chunk]
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        while cut is None and not self.server.over.wait(0.02):
            if stream.comments:
                self.wfile.write(b"3\r\n:k\n\r\n")

    def handle(self) -> None:
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            return  # the reader has seen enough

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Quiet."""


class _Server(ThreadingHTTPServer):
    def __init__(self, stream: Stream) -> None:
        super().__init__((HOST, 0), _Handler)
        self.stream = stream
        self.over = threading.Event()


@contextmanager
def service(stream: Stream) -> Iterator[RunpodApi]:
    """RunPod's log endpoint on a real socket."""
    server = _Server(stream)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    api = RunpodApi(f"http://{HOST}:{server.server_address[1]}", Secret("rpa_test", "test"))
    try:
        yield api
    finally:
        server.over.set()
        api.close()
        server.shutdown()
        server.server_close()
        thread.join()


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


WHOLE = [frame(n) for n in range(30)]
EXPECTED = [f"line {n}" for n in range(30)]


@given(
    cuts=st.lists(st.integers(0, len(b"".join(WHOLE))), max_size=6),
    chunk=st.integers(1, 400),
    inclusive=st.booleans(),
)
@settings(max_examples=15)
def test_every_line_once_wherever_it_is_cut(*, cuts: list[int], chunk: int, inclusive: bool) -> None:
    stream = Stream(list(WHOLE), list(cuts), chunk, inclusive)
    with service(stream) as api:
        log, got = PodLog(api, "p1"), list[Line]()
        for _ in range(len(cuts) + 1):
            try:
                for line in log.more(quiet_seconds=0.5):
                    got.append(line)
                break
            except ProviderUnavailable:
                continue
    assert texts(got) == EXPECTED
    assert stream.asked[0] == ("/v2/pods/p1/logs?tail=100", None)


def test_a_server_that_refuses_the_cursor_is_asked_by_time_and_nothing_comes_twice() -> None:
    stream = Stream([frame(n) for n in range(10)], [300], inclusive=True, cursors=False)
    with service(stream) as api:
        assert texts(PodLog(api, "p1").past(quiet_seconds=0.25)) == [f"line {n}" for n in range(10)]
    assert stream.asked[1][1] is not None
    assert "since=" in stream.asked[2][0]


def test_lines_that_share_a_cursor_are_not_taken_for_repeats() -> None:
    stream = Stream([frame(1, "same", unique=False)] * 3)
    with service(stream) as api:
        assert texts(PodLog(api, "p1").past(quiet_seconds=0.25)) == ["same"] * 3


def test_the_past_is_in_order_of_time_whatever_the_order_of_arrival() -> None:
    stream = Stream([frame(5), frame(6), frame(1, source="system"), frame(7)])
    with service(stream) as api:
        assert texts(PodLog(api, "p1").past(quiet_seconds=0.25)) == ["line 1", "line 5", "line 6", "line 7"]


def test_more_goes_on_after_the_past() -> None:
    stream = Stream([frame(1), frame(2)])
    with service(stream) as api:
        log = PodLog(api, "p1")
        assert len(log.past(quiet_seconds=0.25)) == 2
        stream.frames.append(frame(3, "größer ✓"))
        assert texts(list(log.more(quiet_seconds=0.5))) == ["größer ✓"]
        assert list(log.more(quiet_seconds=0.1)) == []


def test_a_stream_that_lives_on_comments_only_is_silent() -> None:
    stream = Stream([frame(1)], comments=True)
    with service(stream) as api:
        begun = time.monotonic()
        assert texts(PodLog(api, "p1").past(quiet_seconds=0.3)) == ["line 1"]
        assert time.monotonic() - begun < 3


def test_a_head_that_is_late_is_waited_for() -> None:
    with service(Stream([frame(1)], head_seconds=0.4)) as api:
        assert texts(PodLog(api, "p1").past(quiet_seconds=0.1)) == ["line 1"]


def test_a_flood_ends_within_its_bound() -> None:
    stream = Stream([frame(n % 3600) for n in range(20_000)], chunk=1000)
    with service(stream) as api:
        begun = time.monotonic()
        assert PodLog(api, "p1").past(quiet_seconds=0.5, within_seconds=0.3)
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (401, BadCredentials), (422, BadSpec)])
def test_a_refusal_says_which(status: int, error: type[Exception]) -> None:
    with service(Stream([], status=status)) as api, pytest.raises(error):
        PodLog(api, "p1").past(quiet_seconds=0.25)


def test_who_cuts_every_connection_is_asked_three_times_and_then_told() -> None:
    stream = Stream([frame(1)], cuts=[0] * 50)
    with service(stream) as api, pytest.raises(ProviderUnavailable, match=r"ended its stream|cut off"):
        PodLog(api, "p1").past(quiet_seconds=0.25)
    assert len(stream.asked) == 3


def test_who_cannot_be_reached_is_told_and_has_no_tail() -> None:
    api = RunpodApi(f"http://{HOST}:{free_port()}", Secret("rpa_test", "test"))
    with pytest.raises(ProviderUnavailable):
        PodLog(api, "p1").past()
    assert tail(api, "p1", 5, 1.0) == []
    api.close()


def test_the_tail_for_a_record_is_short_and_in_time() -> None:
    stream = Stream([frame(n) for n in range(50)])
    with service(stream) as api:
        begun = time.monotonic()
        assert texts(tail(api, "p1", 3, 1.0)) == ["line 47", "line 48", "line 49"]
        assert time.monotonic() - begun < 2
    assert stream.asked[0][0] == "/v2/pods/p1/logs?tail=3"


def test_a_line_that_is_no_json_is_shown_as_it_is() -> None:
    stream = Stream(
        [b"id: x\r\nevent: log\r\n: comment\r\ndata: plain\r\ndata: text\r\n\r\n", b"data: [1]\n\n"]
    )
    with service(stream) as api:
        assert texts(PodLog(api, "p1").past(quiet_seconds=0.25)) == ["plain\ntext", "[1]"]
