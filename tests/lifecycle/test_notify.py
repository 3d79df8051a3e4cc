"""Webhooks: exact shapes on the wire, at least once, and never a pass that waits."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from llmpod.lifecycle.events import EventLog
from llmpod.lifecycle.notify import Notifier
from llmpod.model import EventKind
from tests.lifecycle.hooks import NOW, SECRET, Clock, silence, tell, texts, to, webhook
from tests.support.net import HOST, free_port
from tests.support.process import running
from tests.support.wait import eventually


# --- who gets what
def test_each_target_gets_its_kinds_once_and_in_order(state_dir: Path) -> None:
    log = EventLog(state_dir)
    with webhook() as everything, webhook() as money:
        notifier = Notifier([to(everything.url), to(money.url, events=["budget", "leak"])], clock=Clock())
        for number, kind in enumerate((EventKind.CREATED, EventKind.BUDGET, EventKind.READY, EventKind.LEAK)):
            tell(log, str(number), kind)
        for _ in range(3):
            assert notifier.deliver(log) == []
        assert texts(everything) == ["0", "1", "2", "3"]
        assert texts(money) == ["1", "3"]
        tell(log, "4")
        assert notifier.deliver(log) == []
        assert texts(everything) == ["0", "1", "2", "3", "4"]
        assert texts(money) == ["1", "3"]


def test_a_new_target_hears_of_the_last_hour_only(state_dir: Path) -> None:
    log, clock = EventLog(state_dir), Clock()
    tell(log, "yesterday", at=NOW - 86400)
    tell(log, "just now", at=NOW - 60)
    with webhook() as hook:
        assert Notifier([to(hook.url)], clock=clock).deliver(log) == []
        assert texts(hook) == ["just now"]


def test_what_happens_after_a_target_was_first_seen_reaches_it_however_late(state_dir: Path) -> None:
    log, clock = EventLog(state_dir), Clock()
    with webhook() as hook:
        notifier = Notifier([to(hook.url)], clock=clock)
        assert notifier.deliver(log) == []
        tell(log, "before a long sleep", at=NOW + 60)
        clock.now += 2 * 86400
        assert notifier.deliver(log) == []
        assert texts(hook) == ["before a long sleep"]


def test_without_targets_nothing_is_read_or_written(state_dir: Path) -> None:
    tell(EventLog(state_dir))
    assert Notifier([]).deliver(EventLog(state_dir)) == []
    assert [path.name for path in state_dir.iterdir()] == ["events.jsonl"]


# --- trouble
def test_a_failure_is_tried_again_later_in_order_and_the_others_go_on(state_dir: Path) -> None:
    log, clock = EventLog(state_dir), Clock()
    with webhook() as good, webhook() as bad:
        notifier = Notifier([to(good.url), to(bad.url)], clock=clock)
        bad.answers = [(500, {})]
        tell(log, "a")
        tell(log, "b")
        assert notifier.deliver(log) == ["notifications[1] (json): HTTP 500; next try after 60 s"]
        assert (texts(good), texts(bad)) == (["a", "b"], ["a"])
        clock.now += 59
        assert notifier.deliver(log) == []
        assert texts(bad) == ["a"]
        clock.now += 2
        assert notifier.deliver(log) == []
        assert (texts(good), texts(bad)) == (["a", "b"], ["a", "a", "b"])


def test_the_pause_grows_to_an_hour_and_ends_with_success(state_dir: Path) -> None:
    log, clock, pauses = EventLog(state_dir), Clock(), list[float]()
    with webhook() as hook:
        notifier = Notifier([to(hook.url)], clock=clock)
        hook.answers = [(503, {})] * 9
        tell(log)
        for _ in range(9):
            assert len(notifier.deliver(log)) == 1
            (progress,) = log.progress().values()
            pauses.append(progress.next_try_at - clock.now)
            clock.now = progress.next_try_at
        assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
        assert notifier.deliver(log) == []
        (progress,) = log.progress().values()
        assert (progress.failures, progress.next_try_at) == (0, 0)


@pytest.mark.parametrize(("wait", "pause"), [("600", 600), ("5", 60), ("99999999", 3600), ("soon", 60)])
def test_retry_after_is_honoured_within_reason(state_dir: Path, wait: str, pause: int) -> None:
    log = EventLog(state_dir)
    with webhook() as hook:
        hook.answers = [(429, {"Retry-After": wait})]
        tell(log)
        (line,) = Notifier([to(hook.url)], clock=Clock()).deliver(log)
    assert line == f"notifications[0] (json): HTTP 429; next try after {pause} s"


def test_an_event_that_is_never_taken_does_not_hold_up_the_next(state_dir: Path) -> None:
    log = EventLog(state_dir)
    with webhook() as hook:
        hook.answers = [(400, {})]
        tell(log, "bad", EventKind.BUDGET)
        tell(log, "good")
        lines = Notifier([to(hook.url)], clock=Clock()).deliver(log)
        assert lines == ["notifications[0] (json): HTTP 400; the event `budget` is dropped there"]
        assert texts(hook) == ["bad", "good"]


def test_events_of_a_dead_target_are_given_up_after_a_day_and_the_newer_kept(state_dir: Path) -> None:
    log, clock = EventLog(state_dir), Clock()
    with webhook() as hook:
        notifier = Notifier([to(hook.url)], clock=clock)
        hook.answers = [(500, {})] * 2
        tell(log, "old")
        assert len(notifier.deliver(log)) == 1
        clock.now += 86401
        tell(log, "new", at=clock.now)
        lines = notifier.deliver(log)
        assert lines[1:] == ["notifications[0] (json): events older than a day are given up"]
        clock.now += 3601
        assert notifier.deliver(log) == []
        assert texts(hook) == ["old", "old", "new"]


def test_a_redirect_is_not_followed(state_dir: Path) -> None:
    log = EventLog(state_dir)
    with webhook() as hook, webhook() as elsewhere:
        hook.answers = [(307, {"Location": elsewhere.url}), (302, {"Location": elsewhere.url})]
        tell(log)
        (line,) = Notifier([to(hook.url)], clock=Clock()).deliver(log)
        assert "HTTP 307 (redirects are not followed)" in line
        assert elsewhere.got == []


@pytest.mark.parametrize("greeting", [b"", b"H", b"HTTP/1.1 200 OK\r\n"])
def test_a_target_that_hangs_costs_its_bound_and_no_other_target_anything(
    state_dir: Path, greeting: bytes
) -> None:
    log = EventLog(state_dir)
    tell(log, "a")
    tell(log, "b")
    with silence(greeting) as hung, webhook() as good:
        notifier = Notifier([to(hung), to(good.url)], clock=Clock(), within_seconds=0.7)
        begun = time.monotonic()
        (line,) = notifier.deliver(log)
        took = time.monotonic() - begun
        assert texts(good) == ["a", "b"]
        assert line.startswith("notifications[0] (json): ")
        assert 0.3 < took < 3.0
        begun = time.monotonic()
        assert notifier.deliver(log) == []  # left alone for a minute
        assert time.monotonic() - begun < 0.3


def test_a_slow_target_gets_the_rest_at_the_next_pass_without_a_reproach(state_dir: Path) -> None:
    log, clock = EventLog(state_dir), Clock()
    with webhook() as hook:
        hook.before = lambda: time.sleep(0.45)  # the slowness itself, not a wait for something
        for number in range(6):
            tell(log, str(number))
        notifier = Notifier([to(hook.url)], clock=clock, within_seconds=1.2)
        while len(set(texts(hook))) < 6:
            assert notifier.deliver(log) == []
        assert list(dict.fromkeys(texts(hook))) == [str(number) for number in range(6)]


def test_a_refused_connection_is_told_without_the_address(state_dir: Path) -> None:
    log = EventLog(state_dir)
    tell(log)
    url = f"http://user:pa55word@{HOST}:{free_port()}/{SECRET}"
    notifier = Notifier([to(url)], clock=Clock())
    (line,) = notifier.deliver(log)
    assert line == "notifications[0] (json): cannot be reached (ConnectionError); next try after 60 s"
    shown = line + repr(notifier) + "".join(path.read_text() for path in state_dir.iterdir())
    assert SECRET not in shown
    assert "pa55word" not in shown


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/x", "http://[::1/x", "http://", "https://x..y/"])
def test_an_impossible_address_is_a_failure_like_any_other(state_dir: Path, url: str) -> None:
    log = EventLog(state_dir)
    tell(log)
    (line,) = Notifier([to(url)], clock=Clock()).deliver(log)
    assert line.startswith("notifications[0] (json): cannot be reached")


def test_where_delivery_cannot_be_noted_nothing_is_sent_over_and_over(state_dir: Path) -> None:
    log = EventLog(state_dir)
    tell(log)
    (state_dir / "delivered.json").mkdir()
    with webhook() as hook:
        notifier = Notifier([to(hook.url)], clock=Clock())
        for _ in range(3):
            (line,) = notifier.deliver(log)
            assert "delivered.json" in line
        assert hook.got == []


def test_a_clock_that_was_put_right_does_not_silence_a_target_for_years(state_dir: Path) -> None:
    log, clock = EventLog(state_dir), Clock(NOW + 5 * 365 * 86400)
    with webhook() as hook:
        hook.answers = [(500, {})]
        notifier = Notifier([to(hook.url)], clock=clock)
        tell(log, "in the future", at=clock.now)
        assert len(notifier.deliver(log)) == 1
        clock.now = NOW
        tell(log, "today", at=NOW)
        assert notifier.deliver(log) == []
        assert texts(hook) == ["in the future", "in the future", "today"]


# --- crashes and company
_SENDER = """
import sys
from pathlib import Path
from llmpod.config import Notification
from llmpod.lifecycle.events import EventLog
from llmpod.lifecycle.notify import Notifier
print(Notifier([Notification(url=sys.argv[2])], clock=lambda: float(sys.argv[3])).deliver(EventLog(Path(sys.argv[1]))))
"""


def test_a_crash_between_sending_and_noting_sends_again_with_the_same_id(state_dir: Path) -> None:
    log = EventLog(state_dir)
    tell(log, "a")
    tell(log, "b")
    with webhook() as hook:
        argv = [sys.executable, "-c", _SENDER, state_dir, hook.url, NOW]
        with running([str(word) for word in argv]) as sender:
            killed = list[bool]()

            def kill_at_the_second() -> None:
                if len(hook.got) == 2 and not killed:
                    killed.append(True)
                    sender.signal(signal.SIGKILL)
                    sender.wait()

            hook.before = kill_at_the_second
            eventually(lambda: killed, within=20)
        assert Notifier([to(hook.url)], clock=Clock()).deliver(log) == []
        assert texts(hook) in (
            ["a", "b", "b"],
            ["a", "b", "a", "b"],
        )  # "a" may not have been noted yet either
        ids = {(text, json.loads(got.body)["id"]) for text, got in zip(texts(hook), hook.got, strict=True)}
        assert len(ids) == 2


def test_several_deliverers_at_once_send_each_event_once(state_dir: Path) -> None:
    log = EventLog(state_dir)
    for number in range(10):
        tell(log, str(number))
    with webhook() as hook:
        argv = [sys.executable, "-c", _SENDER, str(state_dir), hook.url, str(NOW)]
        with running(argv) as one, running(argv) as two, running(argv) as three:
            assert [each.wait(within=30) for each in (one, two, three)] == [0, 0, 0]
        assert texts(hook) == [str(number) for number in range(10)]
