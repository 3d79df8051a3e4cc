"""Lines that stay lines, numbers that add up, and nothing that can hold up an answer."""

import json
import logging
import threading
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpod.observe import Journal, Log, Metrics, Seen, open_log
from llmpod.observe.logs import BUFFER_BYTES, FIELD_CHARS, encode
from llmpod.observe.metrics import MAX_MODELS, SECONDS_BOUNDS, Histogram, exposition, wants_text
from llmpod.veil import Veil
from tests.support.wait import eventually


class Page:
    """Takes what a log writes."""

    def __init__(self) -> None:
        self.text = b""

    def __call__(self, block: bytes) -> None:
        self.text += block

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.text.splitlines()]


def seen(**changes: Any) -> Seen:
    base = Seen(1.5, "POST", "/v1/x", 200, "HIT", "stored", 0.001, 10, "m", "127.0.0.1")
    return base._replace(**changes)


def written(work: Callable[[Log], None], level: str = "INFO") -> list[dict[str, object]]:
    page = Page()
    log = Log(page, level=level, clock=lambda: 0.0)
    work(log)
    log.close()
    return page.lines


@given(
    st.text(),
    st.text(max_size=3000),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.binary()),
)
def test_every_event_is_exactly_one_line(event: str, text: str, value: object) -> None:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # noqa: PLR0124 - NaN
        value = 0.0
    line = encode(0.0, "INFO", event, {"text": text, "value": value}, veil=Veil())
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert all(32 <= byte < 127 for byte in line[:-1])
    assert len(str(json.loads(line)["text"])) <= FIELD_CHARS


def test_secrets_and_bodies_have_no_field() -> None:
    (line,) = written(
        lambda log: log.info("x", Authorization="s", api_key="s", body="s", prompt="s", path="/p")
    )
    assert line == {"ts": "1970-01-01T00:00:00.000Z", "level": "info", "event": "x", "path": "/p"}


def test_levels() -> None:
    def all_four(log: Log) -> None:
        for say in (log.debug, log.info, log.warning, log.error):
            say("x")

    assert [line["level"] for line in written(all_four, "WARNING")] == ["warning", "error"]


def test_a_value_that_cannot_be_printed_costs_a_line_and_nothing_else() -> None:
    class Rude:
        def __str__(self) -> str:
            raise ValueError

    page = Page()
    log = Log(page)
    log.info("x", value=Rude())
    log.info("x", value=float("nan"))
    log.close()
    assert (log.dropped, page.text) == (2, b"")


def test_a_full_disk_does_not_stop_the_log() -> None:
    written_bytes = Page()

    def sometimes(block: bytes) -> None:
        if b"lost" in block:
            raise OSError(28, "No space left on device")
        written_bytes(block)

    log = Log(sometimes)
    log.info("lost")
    eventually(lambda: log.dropped == 1)
    log.info("kept")
    log.close()
    assert [line["event"] for line in written_bytes.lines] == ["kept"]


def test_a_writer_that_hangs_holds_nobody_up_and_takes_bounded_memory() -> None:
    release = threading.Event()
    log = Log(lambda _: release.wait(10))
    for _ in range(BUFFER_BYTES // 1000 + 1000):
        log.info("x", text="y" * 1000)
    assert log.dropped > 0
    release.set()
    log.close()


def test_what_libraries_say_becomes_a_line() -> None:
    page = Page()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        log = open_log(write=page)
        logging.getLogger("uvicorn.error").info("Started")
        logging.getLogger("asyncio").error("two\nlines %s", "\x1b[31m")
        log.close()
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    (line,) = page.lines
    assert (line["event"], line["logger"], line["message"]) == ("library", "asyncio", "two\nlines \x1b[31m")


@given(st.text(), st.text(), st.text())
def test_access_lines_are_json_whatever_was_asked(path: str, model: str, reason: str) -> None:
    page = Page()
    log = Log(page)
    journal = Journal(log, Metrics())
    journal.add(seen(path=path, model=model, reason=reason))
    assert not journal.flush()
    log.close()
    (line,) = page.lines
    assert line["path"] == path[:FIELD_CHARS]
    assert (line["status"], line["ms"]) == (200, 1.0)


def test_the_journal_counts_and_remembers_the_latest() -> None:
    log = Log(Page())
    journal = Journal(log, Metrics())
    for number in range(60):
        journal.add(seen(at=float(number), status=500 if number % 2 else 200, cache="MISS"))
    journal.add(seen(status=499, cache=""))
    numbers = journal.metrics.as_json({"cache_entries": 3})
    assert (numbers["requests_total"], numbers["errors_total"], numbers["cache_misses"]) == (61, 30, 60)
    assert numbers["responses_by_status"]["5xx"] == 30
    assert numbers["cache_entries"] == 3
    recent = journal.recent()
    assert (len(recent), recent[1]["at"]) == (50, 59.0)
    assert journal.flush(10)
    log.close()


def test_rates_of_nothing_are_zero() -> None:
    numbers = Metrics().as_json({})
    assert (numbers["cache_hit_rate"], numbers["error_rate"], numbers["avg_response_time"]) == (0.0, 0.0, 0.0)
    assert numbers["response_time_p50"] is None


@given(st.lists(st.floats(min_value=0, max_value=10_000), min_size=1))
def test_histograms(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    buckets = histogram.buckets()
    label, total = buckets[-1]
    assert (label, int(total)) == ("+Inf", len(values))
    assert [count for _, count in buckets[:-1]] == [
        sum(v <= bound for v in values) for bound in SECONDS_BOUNDS
    ]
    middle = histogram.quantile(0.5)
    assert middle is not None
    assert middle <= max(values)
    true = sorted(values)[(len(values) - 1) // 2]
    assert bisect_left(SECONDS_BOUNDS, middle) == bisect_left(SECONDS_BOUNDS, true), (
        "in the bucket of the true one"
    )


def test_names_of_models_cannot_fill_the_memory() -> None:
    metrics = Metrics()
    for number in range(10_000):
        metrics.model(f"model {number}")
    assert len(metrics.models) == MAX_MODELS + 1
    assert metrics.models["other"] == 10_000 - MAX_MODELS
    metrics.model('evil"} 1\nx{a="')
    text, _ = exposition(metrics, {}, accept="")
    assert b"\nx{" not in text


def test_no_half_of_a_secret_is_left_where_a_trace_is_cut() -> None:
    """Found by a review: what was cut in the middle was no longer known for what it was."""
    secret = "a-secret-of-thirty-characters!"
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    page = Page()
    try:
        log = open_log(write=page, veil=Veil([secret]))
        for size in range(860, 910, 5):
            error = ValueError(secret + "e" * size)
            Journal(log, Metrics()).bug(error)
            logging.getLogger("some.library").error("odd", exc_info=error)
        log.close()
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert len(page.lines) == 20
    assert not [line for line in page.lines if "characters!" in str(line["trace"])]


@pytest.mark.parametrize(
    ("accept", "text"),
    [("", False), ("*/*", False), ("application/json", False), ("text/html,*/*", False), ("text/plain", True),
     ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", True)],
)  # fmt: skip
def test_who_gets_text(accept: str, text: bool) -> None:  # noqa: FBT001 - a parameter of the table above
    assert wants_text(accept) is text
