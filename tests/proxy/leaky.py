"""A program that calls itself a proxy and tells a secret; nothing of ours is in it.

``LEAK`` says where, ``LEAK_FROM`` in which variable or file the secret is.
"""

import base64
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

source = os.environ["LEAK_FROM"]
secret = os.environ.get(source) or Path(source).read_text().splitlines()[-2]
leak = os.environ["LEAK"]


class Page(BaseHTTPRequestHandler):
    """Every page tells it, if that is where it leaks."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(secret.encode() if leak == "page" else b"fine")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Quiet."""


server = HTTPServer(("127.0.0.1", 0), Page)
if leak == "file":
    cache = Path(os.environ["CACHE_DIR"])
    cache.mkdir()
    (cache / "entry").write_bytes(b"\0" + secret.encode() + b"\0")
told = {
    "output": secret,
    "Basic": base64.b64encode(f"me:{secret}".encode()).decode(),
    "hex": secret.encode().hex(),
}
sys.stdout.write(told.get(leak, "nothing"))
sys.stdout.flush()
sleep = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
if leak == "environ":
    subprocess.Popen(sleep, env={"SECRET": secret})
if leak == "argv":
    subprocess.Popen([*sleep, secret])
said = {"event": "listening", "url": f"http://127.0.0.1:{server.server_port}/v1"}
sys.stderr.write(json.dumps(said | ({"why": secret} if leak == "log" else {})) + "\n")
server.serve_forever()
