"""What real servers sent, through the proxy: live and from the cache to the byte, in the other form without a loss."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmpod.cache import verdict
from llmpod.cache.assemble import assemble
from llmpod.cache.sse import iter_frames
from tests.cache.helpers import exchange
from tests.cache.test_real_servers import EXCHANGES, label, path_of
from tests.proxy.front import Proxy
from tests.proxy.stub import Stub, Turn

GOOD = [file for file in EXCHANGES if exchange(file)[0] == 200]


@pytest.mark.parametrize("file", GOOD, ids=label)
def test_a_recording_passes_and_comes_back(front: Proxy, server: Stub, file: Path) -> None:
    _, stream, body = exchange(file)
    path = path_of(file)

    def script(turn: Turn) -> None:
        if not stream:
            turn.reply(body)
            return
        turn.stream()
        for frame in iter_frames(body):
            turn.chunk(frame)
        turn.last()

    server.script = script
    asked: dict[str, Any] = {"model": "m", "input": label(file)}
    form = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    live = front.ask({**asked, **form}, path=path)
    assert (live.status, live.body, live.cut) == (200, body, False)
    found = verdict(body, stream=stream, path=path)
    again = front.ask({**asked, **form}, path=path)
    assert again.body == body
    # a stream that never counts its tokens, or never says that it is over, is asked for again
    assert again.cache == ("HIT" if found.complete and (found.has_usage or not stream) else "MISS")
    if again.cache == "HIT" and stream:
        document = front.ask(asked, path=path)
        assert (document.cache, document.json) == ("HIT", json.loads(assemble(body, path=path)))
