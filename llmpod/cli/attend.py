"""Not a daemon: passes at the word of a proxy whose model starts with the first request.

The proxy never starts a machine: it writes a wish down and lets the manager pass. A Python program takes half a second
to start, which nobody should wait for, so the next one is started beforehand: this command loads everything, waits for
a line on its standard input, and passes then, again and again until nothing is on its way any more, or sooner at
another line. Its standard input closes when the proxy ends; then it ends, too. After each pass it writes a line of
JSON: ``began`` (monotonic seconds, before it read anything) and ``error`` (why it failed, or empty).
"""

import json
import os
import select
import sys
import time
from contextlib import suppress

from llmpod.cli.command import Command, Invocation
from llmpod.cli.follow import LOCK_SECONDS
from llmpod.errors import LlmpodError
from llmpod.lifecycle.store import Store
from llmpod.model import Phase

_ON_ITS_WAY = frozenset(
    {Phase.INTENT, Phase.UNKNOWN, Phase.CREATED, Phase.BOOTING, Phase.LOADING, Phase.TERMINATING}
)
STDIN = 0
SOON_SECONDS = 60.0  # a retry that is due within this time is stayed for
QUICK_SECONDS = 5.0  # so long a start is looked at closely where that costs nothing
QUICK_POLL_SECONDS = 0.1


def attend(call: Invocation) -> int:
    """Wait for a word; pass until nothing is on its way."""
    with suppress(LlmpodError):  # a pass tells what is wrong
        _load(call)
    if not _word():
        return 0
    began = time.monotonic()
    while True:
        _say(*_pass(call))
        pause = _pause(call, time.monotonic() - began)
        if pause is None or _closed(pause):
            return 0


def _load(call: Invocation) -> None:
    """Import what a pass needs: opening everything does, and calls nobody."""
    loaded, _ = call.config_or_last()
    with call.plane(offline=True, loaded=loaded):
        pass


def _pass(call: Invocation) -> tuple[float, str]:
    """When it began, and why it failed. The configuration is read anew: it may have been edited."""
    began = time.monotonic()
    try:
        loaded, _ = call.config_or_last()
        with call.plane(loaded=loaded) as plane:
            report = plane.run_pass(wait_seconds=LOCK_SECONDS)
        return began, str(report.error or "")
    except LlmpodError as e:
        return began, str(e)


def _say(began: float, error: str) -> None:
    sys.stdout.write(json.dumps({"began": began, "error": error}) + "\n")
    sys.stdout.flush()


def _pause(call: Invocation, age: float) -> float | None:
    """Seconds to the next pass; None: nothing is on its way."""
    try:
        loaded, _ = call.config_or_last()
        state = Store(loaded.state_file).load()
    except LlmpodError:
        return None
    now = time.time() + state.clock_offset
    due = [
        _poll(loaded.models[name].poll_interval_seconds, rented=loaded.models[name].is_rented, age=age)
        for name, record in state.records.items()
        if name in loaded.models and record.phase in _ON_ITS_WAY
    ]
    due += [
        max(0.0, record.next_try_at - now)
        for record in state.records.values()
        if record.phase not in _ON_ITS_WAY and record.next_try_at and record.next_try_at - now < SOON_SECONDS
    ]
    return min(due, default=None)


def _poll(configured: float, *, rented: bool, age: float) -> float:
    return configured if rented or age > QUICK_SECONDS else min(configured, QUICK_POLL_SECONDS)


def _closed(seconds: float) -> bool:
    """Wait so long, or until the proxy says something; whether it has ended."""
    ready, _, _ = select.select([STDIN], [], [], seconds)
    return bool(ready) and not _word()


def _word() -> bytes:
    """What the proxy says; nothing when it has ended. Unbuffered, for what is read ahead no select shows."""
    return os.read(STDIN, 4096)


COMMAND = Command("attend", "passes at a proxy's word, for models that start with the first request", attend)
