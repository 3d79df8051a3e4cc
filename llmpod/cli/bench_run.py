"""Not a load test: one long answer through our own proxy, timed as its user sees it."""

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from llmpod.cli import own
from llmpod.cli.wiring import Plane
from llmpod.config import Auth
from llmpod.errors import LlmpodError
from llmpod.text import one_line

SILENCE_SECONDS = 600.0
_TASK = "Count upwards from one, one number a line, in English words. Do not stop and do not explain."
_QUESTIONS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": _TASK}]}),
    ("/v1/completions", {"prompt": _TASK}),  # models without a chat template
)


@dataclass(frozen=True, slots=True)
class Run:
    """One answer. ``counted``: the server told its tokens; else each piece of the stream was taken for one.

    Args:
        first_token_seconds: from the request to the first piece of the answer.
        seconds: to the last piece.
        tokens: of the answer.
    """

    first_token_seconds: float
    seconds: float
    tokens: int
    counted: bool

    @property
    def tokens_per_second(self) -> float | None:
        """Of the stream after its first token; None where there was no more than that."""
        rest = self.seconds - self.first_token_seconds
        return (self.tokens - 1) / rest if self.tokens > 1 and rest > 0 else None


def run_once(plane: Plane, model: str, tokens: int, clock: Callable[[], float] = time.monotonic) -> Run:
    """Ask for an answer of so many tokens, past the cache.

    Raises:
        LlmpodError: there is no answer, or it is cut short or empty.
    """
    found: Run | str = ""
    for path, question in _QUESTIONS:
        body = {"model": model, "max_tokens": tokens, "stream": True, "temperature": 0, **question}
        body["stream_options"] = {"include_usage": True}
        with closing(own.connection(plane.config.common, timeout=SILENCE_SECONDS)) as connection:
            found = _asked(plane, connection, path, body, clock=clock)
        if isinstance(found, Run):
            return found
    raise LlmpodError(f"The model server does not answer the probe: {found}.")


def _asked(
    plane: Plane,
    connection: http.client.HTTPConnection,
    path: str,
    body: Mapping[str, Any],
    *,
    clock: Callable[[], float],
) -> Run | str:
    """A refusal in words may be one of this path only."""
    headers = {"Content-Type": "application/json", "Cache-Control": "no-cache, no-store"}
    if plane.config.common.auth is Auth.KEYS:
        headers["Authorization"] = f"Bearer {plane.store.proxy_key}"
    begun = clock()
    try:
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            text = one_line(answer.read(4096).decode("utf-8", "replace"), 200)
            return f"{path} is answered with {answer.status}: {text}"
        return _timed(answer, begun, clock)
    except (OSError, http.client.HTTPException) as e:
        raise LlmpodError(
            f"The proxy did not answer to the end ({type(e).__name__}).", hint=f"Read {plane.store.log_file}."
        ) from None


def _timed(answer: http.client.HTTPResponse, begun: float, clock: Callable[[], float]) -> Run:
    first = last = None
    pieces, told = 0, 0
    for event in _events(answer):
        if error := event.get("error"):
            raise LlmpodError(f"The answer ended with an error: {one_line(str(error), 200)}.")
        if _speaks(event):
            last = clock() - begun
            first = last if first is None else first
            pieces += 1
        usage = event.get("usage")
        count = usage.get("completion_tokens") if isinstance(usage, dict) else None
        told = count if isinstance(count, int) else told
    if first is None or last is None:
        raise LlmpodError("The answer was empty.")
    return Run(first, last, told or pieces, counted=bool(told))


def _events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    while line := answer.readline(2**20):
        data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
        if not data or data == b"[DONE]":
            continue
        try:
            event = json.loads(data)
        except ValueError:
            raise LlmpodError("The answer is no stream of events.") from None
        if isinstance(event, dict):
            yield event


def _speaks(event: Mapping[str, Any]) -> bool:
    """Whether there is something of the answer in it: text, reasoning or the like."""
    choices = event.get("choices")
    found = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    delta = found.get("delta")
    said = delta if isinstance(delta, dict) else found
    return any(said.get(name) for name in ("content", "reasoning", "reasoning_content", "text", "tool_calls"))
