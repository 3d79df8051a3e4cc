"""Ctrl-C while the model of a one-command run loads: who waits hears it at once, and so does the terminal."""

import json
import signal
from pathlib import Path

from tests.manager.test_one_command import KEY, QUESTION, STUBBORN, is_deaf, rooms, servers, started
from tests.support.wait import eventually

CHAT = "/v1/chat/completions"
STREAM = json.dumps({**json.loads(QUESTION), "stream": True}).encode()


def test_who_waits_is_told_at_once_and_the_loading_server_is_ended(
    env: dict[str, str], tmp_path: Path
) -> None:
    patient = {**env, "LLMPOD_DRAIN_SECONDS": "600", "KEEPALIVE_SECONDS": "0.2"}
    with started(patient, tmp_path / "cache", command=STUBBORN) as front:
        with front.client() as one, front.client() as stream, front.client() as behind:
            one.send("POST", CHAT, QUESTION, KEY)
            stream.send("POST", CHAT, STREAM, KEY)
            begun = stream.open_reply()
            eventually(lambda: is_deaf(front.process.pid), within=40)
            behind.send("POST", CHAT, QUESTION, KEY)
            behind.send("POST", CHAT, QUESTION, KEY)
            front.process.signal(signal.SIGINT)
            refused = one.reply()
            assert (refused.status, refused.json["error"]["code"]) == (503, "shutting_down")
            assert "being stopped" in refused.json["error"]["message"]
            assert int(refused.headers["retry-after"]) > 0
            rest = stream.rest(begun)
            assert rest.cut
            event = json.loads(rest.body.rstrip().rpartition(b"data: ")[2])
            assert event["error"]["code"] == "shutting_down"
            for _ in range(2):
                assert behind.reply().json["error"]["code"] == "shutting_down"
        front.process.says("stopping", within=10)
        front.process.says("ending the model server", within=30)
        front.process.signal(signal.SIGINT)
        front.process.says("ending it at once", within=30)
        assert front.process.wait(within=60) == 0
        assert "nothing is left running" in front.process.err
        assert servers() == []
        assert rooms(front.process.pid) == []
