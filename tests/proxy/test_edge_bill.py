"""Who pays for what did not come to its end."""

import json
import threading
from pathlib import Path

from llmpod.config import KEYS_FILE
from tests.proxy.front import chat_body
from tests.proxy.keys import call, entry, write_keys
from tests.proxy.stub import CHAT, frames, one_by_one, stub
from tests.proxy.test_edge_budget import PRICES, by, keyed, used
from tests.support.wait import eventually


def test_who_leaves_the_line_pays_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    """Found by a review: whoever left before a model server was asked paid for the prompt, at no known price."""
    keys = tmp_path / KEYS_FILE
    write_keys(keys, entry("infer", usd_per_day=1000), entry("admin"))
    go = threading.Semaphore(0)
    one_place = {"LLMPOD_MAX_IN_FLIGHT": "1", "LLMPOD_TOKEN_PRICES": json.dumps(PRICES)}
    with stub() as server, keyed(keys, env, server.url, **one_place) as front, front.client() as first:
        server.script = one_by_one(frames("x", usage=True), go)
        first.send("POST", CHAT, json.dumps(chat_body("works", stream=True)).encode(), by("infer"))
        eventually(lambda: len(server.turns) == 1)
        with front.client() as second:
            second.send("POST", CHAT, json.dumps(chat_body("waits" * 1000)).encode(), by("infer"))
        eventually(lambda: call(front, "/metrics", by("admin")).json["client_gone_total"] == 1)
        for _ in range(9):
            go.release()
        assert first.reply().status == 200
    assert (used(keys).requests, used(keys).unpriced) == (2, 0)
    assert used(keys).tokens < 1000
