"""Not a daemon: passes at the word of a proxy whose model starts with the first request.

The proxy never starts a machine: it writes a wish down and lets the manager pass. A Python program takes half a
second to start, which nobody should wait for, so one is started beforehand: this command loads everything, waits for
a line on its standard input, and passes then, again while something is on its way, and sooner at another line or when
a server on this machine begins to listen or answers otherwise than before; then it waits again. It remembers nothing
from one pass to the next. Its standard input closes when the proxy ends; then it ends, too. After each pass it writes
a line of JSON: ``began`` (monotonic seconds, before it read anything), ``error`` (why it failed, or empty), and
``hint`` (what an operator can do about it; it is not for those who call the proxy).
"""

import http.client
import json
import os
import select
import sys
import time
from contextlib import suppress
from urllib.parse import urlsplit

from llmpod.cli.command import Command, Invocation
from llmpod.cli.follow import LOCK_SECONDS
from llmpod.config import Config
from llmpod.errors import LlmpodError
from llmpod.lifecycle.state import State
from llmpod.lifecycle.store import Store
from llmpod.model import Phase, Record

_LOADING = frozenset({Phase.CREATED, Phase.BOOTING, Phase.LOADING})  # its server is not ready yet
_ON_ITS_WAY = _LOADING | {Phase.INTENT, Phase.UNKNOWN, Phase.TERMINATING}
SOON_SECONDS = 60.0  # a retry that is due within this time is stayed for
LOOK_SECONDS = 0.01  # between two looks whether a server listens
ASK_SECONDS = 0.05  # the same for one that does, and the longest wait for its word
WATCHED_SECONDS = 1.0  # between two passes for a server that is watched: whether it crashed
HOST = "127.0.0.1"
STDIN = 0


def attend(call: Invocation) -> int:
    """Pass at each word, and while something is on its way."""
    with suppress(LlmpodError):  # a pass tells what is wrong
        _load(call)
    ended, heard = not _word(), set[tuple[str, int]]()
    while not ended:
        _say(*_pass(call))
        ended = _rest(call, heard)
    return 0


def _rest(call: Invocation, heard: set[tuple[str, int]]) -> bool:
    """Wait until a pass is due or the proxy says something; whether the proxy has ended."""
    try:
        loaded, _ = call.config_or_last()
        state = Store(loaded.state_file).load()
    except LlmpodError:  # the pass told it; somebody mends it, and asks again
        return not _word()
    pause = _pause(loaded, state)
    return not _word() if pause is None else _closed(pause, state, heard)


def _load(call: Invocation) -> None:
    """Import what a pass needs: opening everything does, and calls nobody."""
    loaded, _ = call.config_or_last()
    with call.plane(offline=True, loaded=loaded):
        pass


def _pass(call: Invocation) -> tuple[float, LlmpodError | None]:
    """When it began, and why it failed. The configuration is read anew: it may have been edited."""
    began = time.monotonic()
    try:
        loaded, _ = call.config_or_last()
        with call.plane(loaded=loaded) as plane:
            report = plane.run_pass(wait_seconds=LOCK_SECONDS)
        return began, report.error
    except LlmpodError as e:
        return began, e


def _say(began: float, error: LlmpodError | None) -> None:
    why, hint = (error.message, error.hint) if error else ("", "")
    sys.stdout.write(json.dumps({"began": began, "error": why, "hint": hint}) + "\n")
    sys.stdout.flush()


def _pause(loaded: Config, state: State) -> float | None:
    """Seconds to the next pass; None: nothing is on its way."""
    now = time.time() + state.clock_offset
    due = list[float]()
    for name, record in state.records.items():
        known = name in loaded.models or record.phase is Phase.TERMINATING  # one that was removed goes, too
        if known and record.phase in _ON_ITS_WAY:
            configured = loaded.models.get(name, loaded.common).poll_interval_seconds
            due.append(max(configured, WATCHED_SECONDS) if _is_watched(record) else configured)
        elif record.next_try_at and not record.down_reason and record.next_try_at - now < SOON_SECONDS:
            due.append(max(0.0, record.next_try_at - now))
    return min(due, default=None)


def _closed(seconds: float, state: State, heard: set[tuple[str, int]]) -> bool:
    """Wait so long, until the proxy says something, or until a server has news; whether the proxy has ended.

    Args:
        seconds: the longest wait.
        state: as the last pass has left it.
        heard: the machines, with what their servers have answered; the same again is no news.
    """
    limit, pause = time.monotonic() + seconds, LOOK_SECONDS
    watched = [record for record in state.records.values() if _is_watched(record)]
    while True:
        left = max(0.0, limit - time.monotonic())
        ready, _, _ = select.select([STDIN], [], [], min(pause, left) if watched else left)
        if ready:
            return not _word()
        said = {(record.name, word) for record in watched if (word := _answers(record)) is not None}
        news, pause = said - heard, ASK_SECONDS if said else LOOK_SECONDS
        heard |= news
        if news or not left:
            return False


def _is_watched(record: Record) -> bool:
    """Whether its server is waited for here, on its port; others are asked at the pace of passes."""
    return record.phase in _LOADING and urlsplit(record.base_url or "").hostname == HOST


def _answers(record: Record) -> int | None:
    """The HTTP status of its list of models, 0 while it listens only, None while it does not.

    llama.cpp listens before it has loaded, and answers 503 until it has; vLLM listens when it has (measured).
    """
    connection = http.client.HTTPConnection(HOST, urlsplit(record.base_url).port, timeout=ASK_SECONDS)
    try:
        connection.connect()
    except OSError:
        return None
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _word() -> bytes:
    """What the proxy says; nothing when it has ended. Unbuffered, for what is read ahead no select shows."""
    return os.read(STDIN, 4096)


COMMAND = Command("attend", "passes at a proxy's word, for models that start with the first request", attend)
