"""A server that does one thing at a time: while it streams it answers no probe, and is not taken for dead."""

import sys
from pathlib import Path

from llmpod.lifecycle.store import Store
from tests.manager.test_on_request import CHAT, begin, body
from tests.proxy.front import Client
from tests.support.desk import MODEL, Desk
from tests.support.wait import eventually

# answers one request after the other; a stream goes on until the file is there that its last argument names
ONE_BY_ONE = """
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

model, stop = sys.argv[1], sys.argv[2]

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.say(json.dumps({"data": [{"id": model}]}))

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not asked.get("stream"):
            return self.say(json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": {}}]}))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        while not os.path.exists(stop):
            self.wfile.write(b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\\n\\n')
            time.sleep(0.1)
        self.wfile.write(b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\\n\\n')
        self.wfile.write(b'data: [DONE]\\n\\n')

    def say(self, text):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def server(stop: Path) -> list[str]:
    return [sys.executable, "-c", ONE_BY_ONE, MODEL, str(stop)]


def test_a_server_that_streams_and_answers_no_probe_is_left_at_it(desk: Desk) -> None:
    stop = desk.directory / "stop"
    begin(desk, server(stop), unhealthy_after=1)
    store = Store(desk.directory / "pod_state.json")
    with Client(desk.port, timeout=60.0) as client:
        client.send("POST", CHAT, body("long", stream=True))
        stream = client.open_reply()
        assert stream.read1(1)
        eventually(lambda: (use := store.usage().get("default")) and use.in_flight and use.last_byte)
        said = desk.manage("--no-proxy", "--verbose").out
        assert desk.state()["phase"] == "ready", said
        stop.touch()
        rest = client.rest(stream)
    assert (b"[DONE]" in rest.body, rest.cut) == (True, False)
