"""Not a client library: one question to our own proxy, as a person would ask it."""

import http.client
import json
import time
from collections.abc import Mapping
from typing import Any

from llmpod.cli import own
from llmpod.cli.wiring import Plane
from llmpod.config import Auth
from llmpod.errors import LlmpodError


def await_proxy(plane: Plane, *, patience: float = 10.0) -> None:
    """Until the proxy has read in the state file that the model is ready, which takes it a moment."""
    limit = time.monotonic() + patience
    while time.monotonic() < limit:
        status, _ = _request(plane, "GET", "/readyz", None)
        if status == 200:
            return
        time.sleep(0.05)


def name_of(plane: Plane, served: str) -> str:
    """What to send as `model` to a server: its name, or where it may have any (``*``), the first one that it lists.

    Raises:
        LlmpodError: our own proxy cannot be reached, or lists none.
    """
    if served != "*":
        return served
    status, text = _request(plane, "GET", "/v1/models", None)
    try:
        return str(json.loads(text)["data"][0]["id"])
    except (ValueError, LookupError, TypeError):
        raise LlmpodError(f"The list of models was answered with {status}: {text[:300]!r}") from None


def ask(plane: Plane, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """POST JSON to our own proxy and return its JSON answer.

    Raises:
        LlmpodError: the proxy or the model server answered with an error.
    """
    status, text = _request(plane, "POST", path, json.dumps(body))
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if status != 200 or not isinstance(document, dict):
        raise LlmpodError(f"The first question was answered with {status}: {text[:300]!r}")
    return document


def _request(plane: Plane, method: str, path: str, body: str | None) -> tuple[int, bytes]:
    """One request to our own proxy. Raises LlmpodError when it cannot be reached."""
    common = plane.config.common
    connection = own.connection(common, timeout=300)
    try:
        # The first answer proves that the pod answers, so it must not come from the cache.
        headers = {"Content-Type": "application/json", "Cache-Control": "no-cache"} if body else {}
        if common.auth is Auth.KEYS:
            headers["Authorization"] = f"Bearer {plane.store.proxy_key.reveal()}"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as e:
        raise LlmpodError(
            f"The proxy did not answer the first question: {e}.", hint=f"Read {plane.store.log_file}."
        ) from None
    finally:
        connection.close()
