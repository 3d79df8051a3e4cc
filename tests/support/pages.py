"""What an installation shows and holds, for whoever looks for secrets in it. Not a client of the proxy."""

import http.client
from contextlib import suppress
from pathlib import Path

from llmpod.errors import StateError
from llmpod.lifecycle.store import Store
from tests.support.net import HOST

_PATHS = ("/health", "/metrics", "/dashboard", "/debug/cache", "/no-such-page")


def pages(port: int) -> dict[str, bytes]:
    """The operator's pages of a proxy, as far as it answers in clear, with head."""
    found: dict[str, bytes] = {}
    with suppress(OSError, http.client.HTTPException):
        for path in _PATHS:
            connection = http.client.HTTPConnection(HOST, port, timeout=2)
            try:
                connection.request("GET", path, headers={"Accept": "text/plain, text/html"})
                answer = connection.getresponse()
                found[path] = str(answer.getheaders()).encode() + answer.read()
            finally:
                connection.close()
    return found


def pod_keys(state_file: Path) -> dict[str, str | Path | None]:
    """The keys that an installation derives for its machines and itself, and what it derives them from."""
    source = state_file.parent / ".llmpod" / state_file.stem / "install.key"
    if not source.is_file():
        return {}
    found: dict[str, str | Path | None] = {}
    with suppress(StateError, UnicodeDecodeError):  # some tests damage what they find
        found["installation's secret"] = source.read_text().strip()
        store = Store(state_file)
        names = [record.name for record in store.load().records.values()]
        found |= {f"pod key of {name}": store.pod_key(name).reveal() for name in names if name}
        found["own key"] = store.proxy_key.reveal()
    return found
