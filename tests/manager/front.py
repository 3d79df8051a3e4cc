"""Not a proxy of ours: stands before the simulator's API and changes its answers, as odd servers would."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Pod = dict[str, Any]


@contextmanager
def front(target: str, *, pod: Callable[[Pod], None] = lambda _: None, created: int = 201) -> Iterator[str]:
    """Its URL, while it stands.

    Args:
        target: the simulator's API.
        pod: changes each pod in an answer.
        created: the status of a creation that succeeded.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            status, headers, body = _asked(self, target)
            if status == 201:
                status = created
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() in ("content-type", "date", "retry-after"):
                    self.send_header(name, value)
            body = b"" if status == 204 else _changed(body, pod)
            if status != 204:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = do_PATCH = answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _asked(handler: BaseHTTPRequestHandler, target: str) -> tuple[int, dict[str, str], bytes]:
    """The simulator's own answer to the request in hand."""
    length = int(handler.headers.get("content-length") or 0)
    own = ("host", "content-length", "connection")
    headers = {name: value for name, value in handler.headers.items() if name.lower() not in own}
    data = handler.rfile.read(length) if length else None
    request = urllib.request.Request(target + handler.path, data, headers, method=handler.command)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as e:
        return e.code, dict(e.headers), e.read()


def _changed(body: bytes, pod: Callable[[Pod], None]) -> bytes:
    try:
        value = json.loads(body)
    except ValueError:
        return body
    if isinstance(value, dict):
        for item in value.get("pods") or ([value] if "createdAt" in value else []):
            pod(item)
    return json.dumps(value).encode()
