"""What the proxy takes of the machine's memory: little, and little more with a thousand answers in it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proxy.front import Proxy, chat_body
from tests.proxy.stub import CHAT, Stub, Turn, chat

IDLE_MIB = 100
GROWTH_MIB = 20
ANSWERS = 1000


def resident_mib(proxy: Proxy) -> float:
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_thousand_answers_of_a_kilobyte(front: Proxy, server: Stub) -> None:
    def script(turn: Turn) -> None:
        turn.reply(chat("x" * 800))

    server.script = script
    idle = resident_mib(front)
    assert idle < IDLE_MIB
    with front.client() as client:
        for number in range(ANSWERS):
            client.send("POST", CHAT, json.dumps(chat_body(f"question {number}")).encode())
            assert client.reply().status == 200
    assert front.get("/health").json["cache_entries"] == ANSWERS
    assert resident_mib(front) - idle < GROWTH_MIB


KEPT_MIB = 12
LONG: dict[str, tuple[int, Callable[[str], tuple[str, str, str]]]] = {
    "models": (200, lambda n: (CHAT, "application/json", n + "m" * 200_000)),
    "paths": (1500, lambda n: (f"/v1/{n}" + "p" * 8000, "application/json", "m")),
    "types": (700, lambda n: (CHAT, f"application/json;a={n}" + "t" * 30_000, "m")),
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("what", LONG)
def test_what_is_remembered_of_requests_is_short(front: Proxy, server: Stub, what: str) -> None:
    """Found by a review: tables with bounded numbers of unbounded texts; model names alone made 800 MB."""
    count, make = LONG[what]
    before = 0.0
    server.script = lambda turn: turn.reply(b"{}")
    with front.client() as client:
        for number in range(count):
            path, kind, model = make(f"{number:06d}")
            client.send("POST", path, json.dumps(chat_body(model=model)).encode(), {"Content-Type": kind})
            assert client.reply().status == 200
            if number == count // 20:
                before = resident_mib(front)
    assert resident_mib(front) - before < KEPT_MIB
    assert len(front.get("/dashboard", {"Accept": "application/json"}).body) < 2**20
