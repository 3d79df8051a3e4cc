"""What each kind of webhook gets on the wire, byte for byte."""

import json
from base64 import b64decode
from pathlib import Path

import pytest

from llmpod.lifecycle.events import EventLog
from llmpod.lifecycle.notify import Notifier
from llmpod.model import Event, EventKind
from tests.lifecycle.hooks import NOW, Clock, Got, to, webhook


def sent(state_dir: Path, shape: str, event: Event) -> Got:
    log = EventLog(state_dir)
    log.append(event)
    with webhook() as hook:
        assert Notifier([to(hook.url, shape)], clock=Clock()).deliver(log) == []
        assert hook.got[0].path == "/services/T0/B0/s3cr3t-path"
        assert hook.got[0].headers["User-Agent"].startswith("llmpod/")
        return hook.got[0]


def test_json_has_the_documented_fields_and_no_other(state_dir: Path) -> None:
    got = sent(state_dir, "json", Event(EventKind.READY, "default", "it answers", NOW))
    assert got.headers["Content-Type"] == "application/json"
    assert json.loads(got.body) == {
        "source": "llmpod",
        "id": int(NOW * 1000),
        "kind": "ready",
        "model": "default",
        "text": "it answers",
        "at": "2026-11-18T11:06:40Z",
    }


def test_slack_is_one_text_in_which_nobody_can_be_called(state_dir: Path) -> None:
    got = sent(state_dir, "slack", Event(EventKind.FAILED, "default", "<!channel> a & b", NOW))
    assert json.loads(got.body) == {"text": "llmpod default: failed: &lt;!channel&gt; a &amp; b"}


def test_discord_is_short_content_in_which_nobody_can_be_called(state_dir: Path) -> None:
    body = json.loads(sent(state_dir, "discord", Event(EventKind.LEAK, "m" * 300, "x" * 5000, NOW)).body)
    assert set(body) == {"content", "allowed_mentions"}
    assert body["allowed_mentions"] == {"parse": []}
    assert len(body["content"]) == 2000
    assert body["content"].startswith("llmpod mmm")


@pytest.mark.parametrize(("kind", "priority"), [(EventKind.LEAK, "5"), (EventKind.CREATED, "3")])
def test_ntfy_is_the_text_with_headers(state_dir: Path, kind: EventKind, priority: str) -> None:
    got = sent(state_dir, "ntfy", Event(kind, "default", "pod p1 läuft", NOW))
    assert got.body.decode() == "pod p1 läuft"
    assert got.headers["Title"] == f"llmpod default: {kind}"
    assert got.headers["Priority"] == priority
    assert got.headers["Tags"].isascii()


def test_a_header_stays_one_ascii_line_whatever_the_model_is_called(state_dir: Path) -> None:
    got = sent(state_dir, "ntfy", Event(EventKind.READY, "größtes\r\nX-Evil: 1", "t", NOW))
    assert "X-Evil" not in got.headers
    encoded = got.headers["Title"].removeprefix("=?UTF-8?B?").removesuffix("?=")
    assert b64decode(encoded).decode() == "llmpod größtes  X-Evil: 1: ready"
