"""What the proxy takes of the machine's memory: little, and little more with a thousand answers in it."""

import json
import re
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
